// Package inspect reads the state of the networks of pods from the kernel: interfaces, addresses and routes in the
// network namespace of each pod, the other ends of the veth pairs, bridges, the rules that translate addresses, and
// resolv.conf. It compares this state with the records of the pods and finds problems. The package changes nothing.
//
// [Gather] reads the kernel. [Diagnose] is a pure function that finds the problems.
package inspect

import (
	"context"
	"net/netip"
	"time"

	"github.com/criserver/criserver/sandbox/network"
)

// Input has the pods and networks that Gather inspects.
type Input struct {
	Pods     []PodInput
	Networks []network.Details // the loaded networks
	// NetworkError says why new pods cannot be attached, or is nil.
	NetworkError error
}

// PodInput is the record of a pod.
type PodInput struct {
	ID, Namespace, Name string
	// NotReady says why the pod is not ready, or is "". Of a pod that is not ready, only the attachments are reported.
	NotReady string
	// NetNS is the path of the network namespace, or "" for a pod with the network of the host.
	NetNS string
	// NetNSName is the second path of the namespace, where ip netns finds it, or "".
	NetNSName   string
	Attachments []AttachmentInput // eth0 first
	HostPorts   []network.PortMapping
	Bandwidth   *network.Bandwidth
	// Guest says that a kernel in user space may have taken over the addresses and routes of the pod.
	Guest bool
	DNS   DNSInput
}

// AttachmentInput is an interface of a pod as the daemon has recorded it.
type AttachmentInput struct {
	Interface string
	Network   network.Details
	// Error says why Network is not known, or is nil.
	Error      error
	Result     []byte // the CNI result in JSON
	ResultFile string // the file in which the CNI library keeps the result
}

// DNSInput is the recorded DNS configuration of a pod.
type DNSInput struct {
	Path string // of the resolv.conf that the containers get
	Want []byte // the content that the daemon would write now
	// FromHost says that the pod has a copy of the host's file, made when the pod was created.
	FromHost bool
}

const (
	// Timeout bounds Gather, as long as the system calls of the kernel return.
	Timeout = 20 * time.Second
	// netlinkTimeout bounds the answer of the kernel to one netlink request.
	netlinkTimeout = 5 * time.Second
)

// Gather reads the state of the node and of all pods of the input. A read error is an Error in the report, of
// the node or of one pod, and does not end Gather. Gather does not set the problems; see [Diagnose].
func Gather(ctx context.Context, in Input) *Report {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	r := &Report{Time: time.Now(), NetworkError: errorText(in.NetworkError)}
	host, err := readNetNS()
	if err != nil {
		r.addError("interfaces of the host", err)
		host = &netState{}
	}
	ports, err := readBridgePorts()
	if err != nil {
		r.addError("bridge ports", err)
	}
	r.Host = hostOf(host)
	r.Rules = readRules(ctx, in)
	for _, p := range in.Pods {
		r.Pods = append(r.Pods, gatherPod(ctx, p, host, ports, &r.Rules))
	}
	r.addNetworks(in)
	r.Bridges = bridgesOf(r, host, ports)
	return r
}

// gatherPod returns the state of the network of one pod.
func gatherPod(ctx context.Context, in PodInput, host *netState, ports map[int]portState, rules *Rules) Pod {
	p := Pod{ID: in.ID, Namespace: in.Namespace, Name: in.Name, NotReady: in.NotReady, HostNetwork: in.NetNS == "" && len(in.Attachments) == 0, Guest: in.Guest}
	p.NetNS.Path, p.NetNS.Name = in.NetNS, in.NetNSName
	for _, a := range in.Attachments {
		p.Attachments = append(p.Attachments, attachmentOf(a))
	}
	if p.NotReady != "" {
		return p
	}
	for i := range p.Attachments {
		p.Attachments[i].MissingLeases = p.Attachments[i].missingLeases(p.ID)
	}
	p.DNS = readDNS(in.DNS)
	if p.HostNetwork {
		return p
	}
	p.WantHostPorts, p.WantShaping = in.HostPorts, in.Bandwidth
	if err := ctx.Err(); err != nil {
		p.Error = "the time for reading all pods has ended"
		return p
	}
	state, err := readPodNetNS(&p.NetNS)
	if err != nil {
		p.Error = err.Error()
	}
	if state == nil {
		return p
	}
	p.Interfaces, p.Routes = interfacesOf(state, host, ports), state.routes
	p.Shaping = readShaping(host, p.Interfaces)
	p.Masquerade, p.HostPorts = rules.forPod(p.ID, p.addresses())
	return p
}

// addresses returns all addresses of the pod except loopback and link-local addresses.
func (p *Pod) addresses() []netip.Addr {
	var out []netip.Addr
	for _, i := range p.Interfaces {
		for _, a := range i.Addresses {
			if !a.Addr().IsLoopback() && !a.Addr().IsLinkLocalUnicast() {
				out = append(out, a.Addr())
			}
		}
	}
	return out
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
