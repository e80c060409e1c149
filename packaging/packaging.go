// Package packaging contains the files of the Debian package that are not programs, and tests of
// its maintainer scripts. `make deb` builds the package.
package packaging
