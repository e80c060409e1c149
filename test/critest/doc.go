// Package critest runs the CRI validation suite of sigs.k8s.io/cri-tools against the daemon in bin/.
//
// The run of one variant has three stages, each a process of the same test binary. The first stage starts the second
// one in new mount, network and IPC namespaces, so that the run does not touch bridges, firewall rules and mounts of
// the machine. The second stage serves the test images on loopback, starts the daemon with temporary directories,
// and starts the third stage, which is the suite. When the suite has ended, the second stage counts the results and
// searches for leaks: processes, mounts, links, rules, cgroups, files.
//
// Variants run the suite with other flags or with another OCI runtime. skips.txt lists the specs that may be skipped,
// with the reasons. A spec that is skipped without a line in skips.txt is a failure. No spec is retried.
package critest
