// Package layering contains a test of the import rules between the packages of this module.
package layering
