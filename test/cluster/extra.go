package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/criserver/criserver/test/harness"
)

// maxExtraNodes is the largest number of nodes that AddNode adds to a cluster. Their tokens exist from the start,
// because the API server reads its file of tokens only once.
const maxExtraNodes = 10

func extraName(i int) string { return fmt.Sprintf("extra%d", i) }

// NodeOptions are the differences between a node of AddNode and the other nodes.
type NodeOptions struct {
	// Kubelet has fields of the kubelet's configuration.
	Kubelet map[string]any
	// Disk is the size in bytes of a file system in memory, which is /var/lib of the node. If Disk is 0, /var/lib is
	// on the disk of the host.
	Disk int64
	// Prepare runs after the machine has booted and before its services start. Prepare may be nil.
	Prepare func(context.Context, *Node) error
}

// extraTaint keeps the pods of the scheduler away from the nodes of AddNode. Pods with a nodeName run there.
var extraTaint = map[string]string{"key": "criserver.test/extra", "value": "true", "effect": "NoSchedule"}

// AddNode adds a node to a running cluster and waits until the node is ready. The scheduler puts no pod on the node,
// and the node is not in Nodes. Traffic between its pods and the other nodes takes the way through the control plane.
func (c *Cluster) AddNode(ctx context.Context, options NodeOptions) (*Node, error) {
	n, err := c.newExtraNode(options)
	if err != nil {
		return nil, err
	}
	if err := n.Boot(ctx); err != nil {
		return nil, fmt.Errorf("add node %s: %w", n.Name, err)
	}
	if err := n.WaitReady(ctx); err != nil {
		return nil, fmt.Errorf("add node %s: %w", n.Name, err)
	}
	if err := c.routeToPodsOf(ctx, n); err != nil {
		return nil, fmt.Errorf("add node %s: %w", n.Name, err)
	}
	return n, nil
}

func (c *Cluster) newExtraNode(options NodeOptions) (*Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := len(c.extra) + 1
	if i > maxExtraNodes {
		return nil, fmt.Errorf("add node: the cluster has had %d additional nodes already", maxExtraNodes)
	}
	n := &Node{Name: extraName(i), number: len(c.Nodes) + i, cluster: c, extra: true, options: options}
	c.extra = append(c.extra, n)
	return n, nil
}

// WaitReady waits until a node is ready, and stores the address ranges of its pods.
func (n *Node) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience(60*time.Second))
	defer cancel()
	for {
		err := n.read(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for node %s: %w", n.Name, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// read reads the address ranges of the pods of a node. It fails if the node is not ready.
func (n *Node) read(ctx context.Context) error {
	var object corev1.Node
	if err := n.cluster.Get(ctx, "/api/v1/nodes/"+n.Name, &object); err != nil {
		return err
	}
	n.PodCIDRs = nil
	for _, text := range object.Spec.PodCIDRs {
		cidr, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		n.PodCIDRs = append(n.PodCIDRs, cidr)
	}
	if len(n.PodCIDRs) != 2 || !NodeReady(&object) {
		return fmt.Errorf("node %s is not ready", n.Name)
	}
	return nil
}

// Remove removes a node of AddNode from the cluster with all of its processes and files.
func (n *Node) Remove(ctx context.Context) error {
	c := n.cluster
	err := n.PowerCut(ctx)
	for _, cidr := range n.PodCIDRs {
		err = errors.Join(err, c.Control.RunInNetwork(ctx, "ip", "route", "delete", cidr.String(), "via", n.address(cidr)))
	}
	_, deleteErr := c.Kubectl(ctx, "delete", "node", n.Name)
	return errors.Join(err, deleteErr, removeCgroups(n.cgroup()), os.RemoveAll(n.dir()))
}
