// Package restore makes pods and containers from checkpoints. It creates the pod sandbox and the containers through
// their managers, from the configs of the request, and gives the managers only files and process images of the
// checkpoint. The restored containers are CREATED. The start of a container restores its processes.
//
// Checkpoints are not trusted. Mounts, devices, limits, labels, annotations, capabilities and images come from the
// request and the node. The package compares the process images with these settings, see images.go.
//
// The daemon can die at any instruction. The package writes an intent record before it creates the pod sandbox. Recover
// of the next daemon removes the incomplete pod.
package restore
