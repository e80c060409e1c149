// Package system holds the black-box suite: the daemon's binary, driven by its
// socket as the kubelet drives it, with real images, networks and runtimes.
// Every test ends with a search for what was left behind.
package system
