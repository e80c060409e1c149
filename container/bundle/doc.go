// Package bundle prepares what the OCI config of a container refers to: the directories in the root
// file system, and the mounts, devices and profiles of the host. It does not know the life cycle of
// containers, and keeps no state.
package bundle
