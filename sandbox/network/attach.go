package network

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/sandbox/network/defaultbridge"
	"github.com/criserver/criserver/sandbox/network/nat"
)

// Pod describes a pod to the plugins. Name, Namespace and UID may contain any character; see argument.
type Pod struct {
	ID, Name, Namespace, UID string
	// NetNS is the path of the network namespace, or "" if the namespace does not exist any more.
	NetNS        string
	PortMappings []PortMapping
	DNS          *types.DNS
	Annotations  map[string]string
	Bandwidth    *Bandwidth
	// CgroupPath is the absolute path of the cgroup of the pod in the hierarchy.
	CgroupPath string

	ifName, mac string // set by forInterface
	ips         []string
}

// PortMapping is an element of the capability portMappings.
type PortMapping = nat.PortMapping

// Bandwidth is the capability bandwidth. Rates are in bits per second, bursts in bits.
type Bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

// Attach attaches an interface of the pod to a network. If Attach fails, the caller must call Detach.
func (n *Network) Attach(ctx context.Context, pod Pod, i Interface) (_ *Result, err error) {
	l, err := parseList(i.Plan)
	if err != nil {
		return nil, fmt.Errorf("attach to network: %w", err)
	}
	ctx, step := steps.Start(ctx, steps.CNIAdd, steps.Network(l.conf.Name), steps.Interface(i.Name))
	defer step.EndWith(&err)
	end, err := n.attachments.begin(ctx, i.attachment(pod.ID), l.conf.Name)
	if err != nil {
		return nil, fmt.Errorf("attach to network %q: wait for the end of GC: %w", l.conf.Name, err)
	}
	defer end()
	if l.masquerade != nil {
		if err := n.masquerades.Acquire(ctx, *l.masquerade, i.attachment(pod.ID)); err != nil {
			return nil, fmt.Errorf("attach to network %q: %w", l.conf.Name, err)
		}
	}
	res, err := n.cni().AddNetworkList(ctx, l.conf, pod.forInterface(i).runtimeConf())
	if err != nil {
		return nil, fmt.Errorf("attach to network %q: %w", l.conf.Name, err)
	}
	r, err := readResult(res, i.Name)
	if err != nil {
		return nil, fmt.Errorf("attach to network %q: %w", l.conf.Name, err)
	}
	// An additional network may carry frames of other protocols. A default network without addresses is an error in
	// its configuration.
	if len(r.IPs) == 0 && i.Name == IfName && !l.isolated() {
		return nil, fmt.Errorf("attach to network %q: the result has no address of the pod", l.conf.Name)
	}
	if l.hostPorts != nil {
		if err := n.mapHostPorts(ctx, pod, *l.hostPorts, r.JSON); err != nil {
			return nil, fmt.Errorf("attach to network %q: %w", l.conf.Name, err)
		}
	}
	return r, nil
}

// Detach detaches an interface of the pod from a network. It can be called repeatedly, and without a network namespace.
func (n *Network) Detach(ctx context.Context, pod Pod, i Interface) (err error) {
	l, err := parseList(i.Plan)
	if err != nil {
		return fmt.Errorf("detach from network: %w", err)
	}
	ctx, step := steps.Start(ctx, steps.CNIDel, steps.Network(l.conf.Name), steps.Interface(i.Name))
	defer step.EndWith(&err)
	if l.hostPorts != nil {
		err = n.unmapHostPorts(ctx, pod, *l.hostPorts, i.Result)
	}
	// The plugins run even if the host ports could not be removed.
	if err := errors.Join(err, n.cni().DelNetworkList(ctx, l.conf, pod.forInterface(i).runtimeConf())); err != nil {
		return fmt.Errorf("detach from network %q: %w", l.conf.Name, err)
	}
	n.attachments.remove(i.attachment(pod.ID))
	if defaultbridge.IsNetwork(l.conf.Name) && !n.attachments.InUse(l.conf.Name) {
		n.requestReload() // a pod CIDR may wait for the end of the last pod
		n.RequestGC()     // GC deletes the bridge if another network is configured
	}
	if l.masquerade != nil && n.masquerades.Release(*l.masquerade, i.attachment(pod.ID)) || !n.configured(l.conf.Name) {
		n.requestReconcile()
	}
	return nil
}

// Check executes CNI CHECK: the plugins check whether the pod is attached as ADD has left it. Check returns nil if the
// version of the configuration is older than 0.4.0, or if the configuration disables CHECK.
func (n *Network) Check(ctx context.Context, pod Pod, i Interface) (err error) {
	l, err := parseList(i.Plan)
	if err != nil {
		return fmt.Errorf("check network: %w", err)
	}
	ctx, step := steps.Start(ctx, steps.CNICheck, steps.Network(l.conf.Name), steps.Interface(i.Name))
	defer step.EndWith(&err)
	err = n.cni().CheckNetworkList(ctx, l.conf, pod.forInterface(i).runtimeConf())
	if err != nil && !errors.Is(err, libcni.ErrorCheckNotSupp) {
		return fmt.Errorf("check network %q, interface %s: %w", l.conf.Name, i.Name, err)
	}
	return nil
}

// runtimeConf returns the parameters of the plugins for the interface that forInterface has set.
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

// argument returns a value for CNI_ARGS, in which ";" and "=" are separators. It replaces every
// character except letters, digits, '-', '_' and '.' by '_'. No name in Kubernetes contains '_', so
// a plugin never mistakes the pod for another.
func argument(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r) {
			return r
		}
		return '_'
	}, s)
}
