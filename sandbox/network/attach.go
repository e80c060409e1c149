package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Pod describes a pod to plugins. Name, Namespace and UID can contain any character;
// see argument.
type Pod struct {
	ID, Name, Namespace, UID string
	// NetNS is the path of the network namespace; empty when it is gone.
	NetNS        string
	PortMappings []PortMapping
	DNS          *types.DNS
	Annotations  map[string]string
	Bandwidth    *Bandwidth
	// CgroupPath is the pod's cgroup, absolute in the hierarchy.
	CgroupPath string

	ifName, mac string // set by at
	ips         []string
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

// Attach puts the pod on a network by one interface. When it fails, Detach has
// to follow.
func (n *Network) Attach(ctx context.Context, pod Pod, i Interface) (*Result, error) {
	l, err := fromRaw(i.Plan)
	if err != nil {
		return nil, fmt.Errorf("attach to network: %w", err)
	}
	leave, err := n.gate.enter(ctx, i.attachment(pod.ID), l.conf.Name)
	if err != nil {
		return nil, fmt.Errorf("attach to network %q: wait for the collection of remains: %w", l.conf.Name, err)
	}
	defer leave()
	if l.masquerade != nil {
		if err := n.masquerades.hold(ctx, *l.masquerade, i.attachment(pod.ID)); err != nil {
			return nil, fmt.Errorf("attach to network %q: %w", l.conf.Name, err)
		}
	}
	res, err := n.cni.AddNetworkList(ctx, l.conf, pod.at(i).runtimeConf())
	if err != nil {
		return nil, fmt.Errorf("attach to network %q: %w", l.conf.Name, err)
	}
	r, err := readResult(res, i.Name)
	if err != nil {
		return nil, fmt.Errorf("attach to network %q: %w", l.conf.Name, err)
	}
	// A further network may be for frames of other kinds; the first one without
	// an address is a fault of its configuration.
	if len(r.IPs) == 0 && i.Name == IfName && !l.isolated() {
		return nil, fmt.Errorf("attach to network %q: result: the pod has got no address", l.conf.Name)
	}
	if l.hostPorts != nil {
		if err := n.mapHostPorts(ctx, pod, *l.hostPorts, r.JSON); err != nil {
			return nil, fmt.Errorf("attach to network %q: %w", l.conf.Name, err)
		}
	}
	return r, nil
}

// Detach takes the pod from a network. It may be called any number of times
// and with the network namespace gone.
func (n *Network) Detach(ctx context.Context, pod Pod, i Interface) error {
	l, err := fromRaw(i.Plan)
	if err != nil {
		return fmt.Errorf("detach from network: %w", err)
	}
	if l.hostPorts != nil {
		err = n.unmapHostPorts(ctx, pod, *l.hostPorts, i.Result)
	}
	// Whatever became of that, the rest goes.
	if err := errors.Join(err, n.cni.DelNetworkList(ctx, l.conf, pod.at(i).runtimeConf())); err != nil {
		return fmt.Errorf("detach from network %q: %w", l.conf.Name, err)
	}
	n.gate.forget(i.attachment(pod.ID))
	if l.masquerade != nil && n.masquerades.release(*l.masquerade, i.attachment(pod.ID)) || !n.configured(l.conf.Name) {
		n.wakeTables()
	}
	return nil
}

// Check asks the plugins whether the pod is attached as they left it. It is nil
// where the version of the configuration, 0.4.0 at least, does not know the
// question, or its author forbids it.
func (n *Network) Check(ctx context.Context, pod Pod, i Interface) error {
	l, err := fromRaw(i.Plan)
	if err != nil {
		return fmt.Errorf("check network: %w", err)
	}
	err = n.cni.CheckNetworkList(ctx, l.conf, pod.at(i).runtimeConf())
	if err != nil && !errors.Is(err, libcni.ErrorCheckNotSupp) {
		return fmt.Errorf("check network %q, interface %s: %w", l.conf.Name, i.Name, err)
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
	if p.CgroupPath != "" {
		caps["cgroupPath"] = p.CgroupPath
	}
	if p.mac != "" {
		caps["mac"] = p.mac
	}
	if len(p.ips) > 0 {
		caps["ips"] = p.ips
	}
	if len(p.Annotations) > 0 {
		caps["io.kubernetes.cri.pod-annotations"] = p.Annotations
	}
	return &libcni.RuntimeConf{
		ContainerID: p.ID,
		NetNS:       p.NetNS,
		IfName:      p.ifName,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", argument(p.Namespace)},
			{"K8S_POD_NAME", argument(p.Name)},
			{"K8S_POD_INFRA_CONTAINER_ID", p.ID},
			{"K8S_POD_UID", argument(p.UID)},
		},
		CapabilityArgs: caps,
	}
}

// argument returns a value for CNI_ARGS, where ";" and "=" separate arguments. It
// replaces every character except letters, digits, '-', '_' and '.' by '_', which no
// name of Kubernetes contains: a plugin never takes the pod for another one.
func argument(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r) {
			return r
		}
		return '_'
	}, s)
}

// readResult takes from a result the addresses inside the pod, those of the
// interface asked for before those of further ones. Loopback's are nobody's.
func readResult(res types.Result, ifName string) (*Result, error) {
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
		addr = addr.Unmap()
		name, inside := interfaceOf(cur, ip)
		switch {
		case !inside || addr.IsLoopback() || slices.Contains(first, addr) || slices.Contains(rest, addr):
		case name == ifName || name == "":
			first = append(first, addr)
		default:
			rest = append(rest, addr)
		}
	}
	return &Result{IPs: append(first, rest...), JSON: raw}, nil
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
