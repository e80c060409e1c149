// Package request makes the requests of the CRI that restore a checkpoint, from the configs that the checkpoint
// contains. A config decides which files and devices of the node a container can use, so the package verifies the
// signature of a checkpoint before it uses a config. The package calls no daemon and changes nothing.
package request
