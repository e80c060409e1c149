// Package restore makes pods and containers from checkpoints. It creates the pod sandbox and the containers through
// their managers, from the configs of the request, and gives the managers only files and process images of the
// checkpoint. The containers are CREATED then, and their processes are restored when they are started.
//
// Checkpoints are not trusted. Mounts, devices, limits, labels, annotations, capabilities and images come from the
// request and the node, and the process images are compared with them: see images.go.
//
// The daemon can die at any instruction. An intent record is written before the pod sandbox is created, so that Recover
// of the next daemon removes an incomplete pod.
package restore
