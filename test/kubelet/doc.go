// Package kubelet has the suite in which a real kubelet drives the daemon. The
// kubelet runs without an API server, on pod manifests in a directory, in
// namespaces of the run. The tests check its pods through its API, from inside the
// containers, and through the kernel.
package kubelet
