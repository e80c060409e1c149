// Package bundle makes the OCI config of a container, and prepares what the config refers to: the directories in the
// root file system, and the mounts, devices, labels and profiles of the host. It does not know the life cycle of
// containers, and keeps no state.
package bundle
