package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Pod is what plugins are told of a pod.
type Pod struct {
	ID, Name, Namespace, UID string
	// NetNS is the path of the network namespace; empty when it is gone.
	NetNS        string
	PortMappings []PortMapping
	DNS          *types.DNS
	Annotations  map[string]string
	Bandwidth    *Bandwidth
}

// PortMapping is an element of the capability portMappings, in the form of the
// CNI conventions.
type PortMapping struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"` // "tcp", "udp" or "sctp"
	HostIP        string `json:"hostIP,omitempty"`
}

// Bandwidth is the capability bandwidth: bits per second, and bits of burst.
type Bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

// Result is what attaching a pod led to.
type Result struct {
	// IPs are the addresses inside the pod, the primary one first.
	IPs []netip.Addr
	// JSON is the CNI result as the last plugin gave it.
	JSON json.RawMessage
}

// Plan returns the configuration to attach a pod with. It is to be recorded
// before Attach, as Detach needs the same one, whatever is configured by then.
func (n *Network) Plan(pod Pod) (json.RawMessage, error) {
	if err := n.Status(); err != nil {
		return nil, err
	}
	l := n.loaded.Load().list
	if l == nil { // replaced since
		return nil, n.Status()
	}
	// These do nothing, by their documentation, without their capability. Two
	// processes a pod are saved.
	var idle []string
	if len(pod.PortMappings) == 0 {
		idle = append(idle, "portmap")
	}
	if pod.Bandwidth == nil {
		idle = append(idle, "bandwidth")
	}
	l, err := l.without(idle)
	if err != nil {
		return nil, err
	}
	return l.planned, nil
}

// Attach puts the pod on the network. When it fails, Detach has to follow.
func (n *Network) Attach(ctx context.Context, pod Pod, plan json.RawMessage) (*Result, error) {
	l, err := fromRaw(plan)
	if err != nil {
		return nil, fmt.Errorf("attach to network: %w", err)
	}
	res, err := n.cni.AddNetworkList(ctx, l.conf, pod.runtimeConf())
	if err != nil {
		return nil, fmt.Errorf("attach to network %q: %w", l.conf.Name, err)
	}
	r, err := readResult(res)
	if err != nil {
		return nil, fmt.Errorf("attach to network %q: %w", l.conf.Name, err)
	}
	return r, nil
}

// Detach takes the pod from the network. It may be called any number of times
// and with the network namespace gone.
func (n *Network) Detach(ctx context.Context, pod Pod, plan json.RawMessage) error {
	l, err := fromRaw(plan)
	if err != nil {
		return fmt.Errorf("detach from network: %w", err)
	}
	if err := n.cni.DelNetworkList(ctx, l.conf, pod.runtimeConf()); err != nil {
		return fmt.Errorf("detach from network %q: %w", l.conf.Name, err)
	}
	return nil
}

// gcTimeout bounds the collection of what earlier daemons left behind.
const gcTimeout = 10 * time.Second

// Collect has the plugins drop what belongs to none of the pods: leases, rules
// and attachments whose pods are gone, as after a reboot. It needs cniVersion
// 1.1.0 for the plugins' part, and respects disableGC in the configuration.
func (n *Network) Collect(ctx context.Context, pods []string) error {
	if err := n.Status(); err != nil {
		return nil // nothing can be collected while there is no network
	}
	ctx, cancel := context.WithTimeout(ctx, gcTimeout)
	defer cancel()
	l := n.loaded.Load().list
	if l == nil {
		return nil
	}
	valid := make([]types.GCAttachment, 0, len(pods))
	for _, id := range pods {
		valid = append(valid, types.GCAttachment{ContainerID: id, IfName: IfName})
	}
	if err := n.cni.GCNetworkList(ctx, l.conf, &libcni.GCArgs{ValidAttachments: valid}); err != nil {
		return fmt.Errorf("collect what is left on network %q: %w", l.conf.Name, err)
	}
	return nil
}

func (p Pod) runtimeConf() *libcni.RuntimeConf {
	caps := map[string]any{}
	if len(p.PortMappings) > 0 {
		caps["portMappings"] = p.PortMappings
	}
	if p.DNS != nil {
		caps["dns"] = p.DNS
	}
	if p.Bandwidth != nil {
		caps["bandwidth"] = p.Bandwidth
	}
	if len(p.Annotations) > 0 {
		caps["io.kubernetes.cri.pod-annotations"] = p.Annotations
	}
	return &libcni.RuntimeConf{
		ContainerID: p.ID,
		NetNS:       p.NetNS,
		IfName:      IfName,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", p.Namespace},
			{"K8S_POD_NAME", p.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", p.ID},
			{"K8S_POD_UID", p.UID},
		},
		CapabilityArgs: caps,
	}
}

// readResult takes from a result the addresses inside the pod, those of eth0
// before those of further interfaces.
func readResult(res types.Result) (*Result, error) {
	raw, err := json.Marshal(res)
	if err != nil {
		return nil, err
	}
	cur, err := types100.NewResultFromResult(res)
	if err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	var first, rest []netip.Addr
	for _, ip := range cur.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return nil, fmt.Errorf("result: address %q is invalid", ip.Address.IP)
		}
		name, inside := interfaceOf(cur, ip)
		switch {
		case !inside:
		case name == IfName || name == "":
			first = append(first, addr.Unmap())
		default:
			rest = append(rest, addr.Unmap())
		}
	}
	ips := append(first, rest...)
	if len(ips) == 0 {
		return nil, errors.New("result: the pod has got no address")
	}
	return &Result{IPs: ips, JSON: raw}, nil
}

// interfaceOf says which interface has an address and whether that is in the
// pod. Results of old versions do not say; theirs are the pod's.
func interfaceOf(r *types100.Result, ip *types100.IPConfig) (name string, inside bool) {
	if ip.Interface == nil {
		return "", true
	}
	i := *ip.Interface
	if i < 0 || i >= len(r.Interfaces) {
		return "", false
	}
	return r.Interfaces[i].Name, r.Interfaces[i].Sandbox != ""
}
