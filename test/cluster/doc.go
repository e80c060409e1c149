// Package cluster runs a Kubernetes cluster on one machine: a control plane, and nodes with criserver, a kubelet and
// kube-proxy. The control plane and each node are machines of package machine. The nodes are connected by a
// bridge in the network namespace of the control plane. In the network namespace of the host there is only a
// listener on loopback, through which clients reach the API server. The tests of this package are the suite
// of the project on a cluster.
package cluster
