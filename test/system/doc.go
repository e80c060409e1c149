// Package system has the black-box suite. It drives the daemon through its socket
// like the kubelet, with real images, networks and runtimes. Every test ends with a
// search for leaks.
package system
