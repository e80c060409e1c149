// Package kubelet holds the suite in which the real kubelet drives the daemon.
// It runs standalone, on pod manifests in a directory, in namespaces of its own;
// what it does with the pods is read from its API, from inside the containers
// and from the kernel.
package kubelet
