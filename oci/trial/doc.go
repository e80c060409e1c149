// Package trial finds out which OCI runtimes work on this host, and which of them can run containers
// in user namespaces. It runs a container with each runtime and stores the results until the next
// boot.
package trial
