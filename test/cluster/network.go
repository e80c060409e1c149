package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// lanBridge is the bridge of the LAN, in the network namespace of the control plane.
const lanBridge = "lan0"

// The VXLAN device of a node. Its frames have 50 bytes of headers over IPv4.
const (
	vxlanDevice   = "vxlan0"
	vxlanID       = "42"
	vxlanPort     = "4789"
	vxlanOverhead = 50
	lanMTU        = 1500
)

// LANAddress4 and LANAddress6 are the addresses of the control plane in the LAN.
const (
	LANAddress4 = lanPrefix4 + "1"
	LANAddress6 = lanPrefix6 + "1"
)

// bridgeFilterDir exists if br_netfilter is loaded or built in.
const bridgeFilterDir = "/proc/sys/net/bridge"

// loadBridgeFilter loads the kernel module br_netfilter if the kernel lacks it. Without it, frames between two pods on
// one bridge bypass the rules of kube-proxy, so a pod gets no answer of a Service whose pod is on the same node. The
// module is on in all network namespaces; in the caller's, which is the host's, it is turned off. It stays loaded,
// because another cluster may use it.
func loadBridgeFilter(ctx context.Context) error {
	if _, err := os.Stat(bridgeFilterDir); err == nil {
		return nil
	}
	if out, err := exec.CommandContext(ctx, "modprobe", "br_netfilter").CombinedOutput(); err != nil {
		return fmt.Errorf("kube-proxy needs the kernel module br_netfilter: modprobe: %w: %s", err, out)
	}
	for _, key := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"} {
		if err := os.WriteFile(filepath.Join(bridgeFilterDir, key), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("turn off br_netfilter for the bridges of the host: %w", err)
		}
	}
	return nil
}

// setUpLAN creates the bridge that connects the nodes.
func (c *Cluster) setUpLAN(ctx context.Context) error {
	return c.runAll(ctx, c.Control.RunInNetwork, []string{
		"ip link add " + lanBridge + " type bridge",
		"ip address add " + LANAddress4 + lanBits4 + " dev " + lanBridge,
		"ip address add " + LANAddress6 + lanBits6 + " nodad dev " + lanBridge,
		"ip link set " + lanBridge + " up",
	})
}

// runAll runs commands whose arguments have no spaces.
func (c *Cluster) runAll(ctx context.Context, run func(context.Context, ...string) error, commands []string) error {
	for _, command := range commands {
		if err := run(ctx, strings.Fields(command)...); err != nil {
			return err
		}
	}
	return nil
}

// port returns the name of the port of the LAN bridge that is connected to the node.
func (n *Node) port() string { return "port-" + n.Name }

// connect connects a node to the LAN.
func (n *Node) connect(ctx context.Context) error {
	c := n.cluster
	// The command runs in the process namespace of the host, where the node has this process ID.
	err := c.runAll(ctx, c.Control.RunInNetwork, []string{
		fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d", n.port(), n.Machine.Pid()),
		"ip link set " + n.port() + " master " + lanBridge + " up",
	})
	if err != nil {
		return err
	}
	return c.runAll(ctx, n.Machine.RunInNetwork, []string{
		"ip address add " + n.Address4() + lanBits4 + " dev eth0",
		"ip address add " + n.Address6() + lanBits6 + " nodad dev eth0",
		"ip link set eth0 up",
		"ip route add default via " + LANAddress4,
		"ip route add default via " + LANAddress6,
	})
}

// CutNetwork disconnects a node from the LAN, and RestoreNetwork connects the node again.
func (n *Node) CutNetwork(ctx context.Context) error {
	return n.cluster.Control.RunInNetwork(ctx, "ip", "link", "set", n.port(), "down")
}

// RestoreNetwork reverses CutNetwork.
func (n *Node) RestoreNetwork(ctx context.Context) error {
	return n.cluster.Control.RunInNetwork(ctx, "ip", "link", "set", n.port(), "up")
}

// connectPods sets up the way from all machines to the pods of all nodes. The controller manager has assigned the
// address ranges of the pods.
func (c *Cluster) connectPods(ctx context.Context) error {
	for _, n := range c.Nodes {
		if err := c.routeToPodsOf(ctx, n); err != nil {
			return err
		}
		if err := n.connectOthers(ctx); err != nil {
			return err
		}
	}
	return nil
}

// routeToPodsOf sets up the way from the control plane to the pods of a node.
func (c *Cluster) routeToPodsOf(ctx context.Context, n *Node) error {
	var commands []string
	for _, cidr := range n.PodCIDRs {
		commands = append(commands, "ip route replace "+cidr.String()+" via "+n.address(cidr))
	}
	return c.runAll(ctx, c.Control.RunInNetwork, commands)
}

// connectOthers sets up the way from a node to the pods of the other nodes.
func (n *Node) connectOthers(ctx context.Context) error {
	var commands []string
	if n.cluster.Network == VXLAN {
		commands = append(commands,
			fmt.Sprintf("ip link add %s address %s type vxlan id %s dev eth0 local %s dstport %s nolearning", vxlanDevice, n.mac(), vxlanID, n.Address4(), vxlanPort),
			"ip link set "+vxlanDevice+" up")
		for _, cidr := range n.PodCIDRs {
			commands = append(commands, "ip address add "+cidr.Addr().String()+" dev "+vxlanDevice)
		}
	}
	for _, other := range n.cluster.Nodes {
		if other != n {
			commands = append(commands, n.toPodsOf(other)...)
		}
	}
	return n.cluster.runAll(ctx, n.Machine.RunInNetwork, commands)
}

// toPodsOf returns the commands that set up the way to the pods of another node. With VXLAN the first address of the
// other node's range is the gateway. The tables of neighbours and of forwarding are static, so no frame is flooded.
func (n *Node) toPodsOf(other *Node) []string {
	var commands []string
	if n.cluster.Network == VXLAN {
		commands = append(commands, fmt.Sprintf("bridge fdb append %s dev %s dst %s", other.mac(), vxlanDevice, other.Address4()))
	}
	for _, cidr := range other.PodCIDRs {
		if n.cluster.Network != VXLAN {
			commands = append(commands, "ip route replace "+cidr.String()+" via "+other.address(cidr))
			continue
		}
		gateway := cidr.Addr().String()
		commands = append(commands,
			fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent", gateway, other.mac(), vxlanDevice),
			fmt.Sprintf("ip route replace %s via %s dev %s onlink", cidr, gateway, vxlanDevice))
	}
	return commands
}

// Address4 and Address6 return the addresses of the node in the LAN.
func (n *Node) Address4() string { return lanPrefix4 + strconv.Itoa(10+n.number) }

// Address6 returns the IPv6 address of the node in the LAN.
func (n *Node) Address6() string { return fmt.Sprintf("%s%x", lanPrefix6, 0x10+n.number) }

// address returns the address of the node in the family of an address range.
func (n *Node) address(cidr netip.Prefix) string {
	if cidr.Addr().Is4() {
		return n.Address4()
	}
	return n.Address6()
}

// mac returns the address of the VXLAN device of the node.
func (n *Node) mac() string { return fmt.Sprintf("02:42:00:00:00:%02x", n.number) }

// podMTU returns the MTU of the pods.
func (c *Cluster) podMTU() int {
	if c.Network == VXLAN {
		return lanMTU - vxlanOverhead
	}
	return lanMTU
}
