// Package host reads the facts about the host that package oci needs to build a spec: the features
// of the kernel, the privileges of the daemon, device nodes, and the mounts of host paths. It changes
// nothing.
package host
