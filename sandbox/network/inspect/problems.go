package inspect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Diagnose sets the problems of the node and of each pod in a report. It uses only the report. If the report lacks a
// value because of a read error, Diagnose assumes no problem.
func Diagnose(r *Report) {
	r.Problems = nil
	d := diagnosis{report: r, owners: r.addressOwners()}
	r.Problems = d.node()
	for i := range r.Pods {
		r.Pods[i].Problems = d.pod(&r.Pods[i])
	}
}

// diagnosis collects the problems of the node or of one pod.
type diagnosis struct {
	report   *Report
	owners   map[netip.Addr][]*Pod
	problems []Problem
}

// add adds an error. The remedy is one sentence.
func (d *diagnosis) add(code, subject, message, remedy string) {
	d.problems = append(d.problems, Problem{Error, code, subject, message, remedy})
}

func (d *diagnosis) warn(code, subject, message, remedy string) {
	d.problems = append(d.problems, Problem{Warning, code, subject, message, remedy})
}

// take returns the collected problems.
func (d *diagnosis) take() []Problem {
	p := d.problems
	d.problems = nil
	return p
}

// HasErrors reports whether the report has a problem that is not a warning, or something that could not be read.
func (r *Report) HasErrors() bool {
	isError := func(p Problem) bool { return p.Severity == Error }
	return len(r.Errors) > 0 || len(r.Rules.Errors) > 0 || slices.ContainsFunc(r.Problems, isError) ||
		slices.ContainsFunc(r.Pods, func(p Pod) bool { return p.Error != "" || slices.ContainsFunc(p.Problems, isError) })
}

// addressOwners returns the ready pods by address. An address belongs to the pod whose namespace has it, and to the pod
// whose record has it. The same address on different bridges is no conflict.
func (r *Report) addressOwners() map[netip.Addr][]*Pod {
	out := make(map[netip.Addr][]*Pod)
	for i := range r.Pods {
		p := &r.Pods[i]
		if p.NotReady != "" {
			continue
		}
		all := p.addresses()
		for _, a := range p.Attachments {
			for _, w := range a.Want.Addresses {
				all = append(all, w.Addr())
			}
		}
		for _, a := range all {
			if !slices.Contains(out[a], p) {
				out[a] = append(out[a], p)
			}
		}
	}
	return out
}

// node returns the problems of the node.
func (d *diagnosis) node() []Problem {
	r := d.report
	if r.NetworkError != "" {
		d.add("network-not-ready", "CNI", "new pods cannot be attached: "+r.NetworkError, "Correct the CNI configuration as the message says; the daemon loads a changed file by itself.")
	}
	d.forwarding()
	for i := range r.Bridges {
		d.bridge(&r.Bridges[i])
	}
	for _, chain := range r.Rules.ForwardDrop {
		if d.needsForwarding(true) || d.needsForwarding(false) {
			d.forwardDrop(chain)
		}
	}
	if h := r.Host; r.Rules.KubeProxy && h.BridgeNF4 != "1" && d.hasBridgeWithTwoPods() {
		d.warn("br-netfilter-off", "net.bridge.bridge-nf-call-iptables",
			"frames between two pods on one bridge bypass the rules of kube-proxy, so a pod does not get the answers of a Service whose endpoint is on the same bridge",
			"Run `modprobe br_netfilter` and `sysctl -w net.bridge.bridge-nf-call-iptables=1`.")
	}
	return d.take()
}

// forwardDrop warns about a chain that drops forwarded packets.
func (d *diagnosis) forwardDrop(chain string) {
	what := "drops forwarded packets that no rule accepts, and no rule names the bridge of the pods"
	if d.report.Host.BridgeNF4 == "1" {
		what += "; because bridge-nf-call-iptables is 1, this includes the frames between pods on one bridge"
	}
	d.warn("forward-policy", "chain "+chain, "the chain "+what,
		"Add the plugin firewall to the CNI configuration, or a rule that accepts the packets from and to the bridge.")
}

func (d *diagnosis) hasBridgeWithTwoPods() bool {
	return slices.ContainsFunc(d.report.Bridges, func(b Bridge) bool {
		pods := 0
		for _, p := range b.Ports {
			if p.Pod != "" {
				pods++
			}
		}
		return pods > 1
	})
}

// needsForwarding reports whether a pod has an address of a family that the host routes.
func (d *diagnosis) needsForwarding(v4 bool) bool {
	for _, p := range d.report.Pods {
		for _, a := range p.Attachments {
			routed := a.Network.Gateway || a.Network.Masquerade.By != ""
			if p.NotReady == "" && routed && slices.ContainsFunc(a.Want.Addresses, func(w netip.Prefix) bool { return w.Addr().Is4() == v4 }) {
				return true
			}
		}
	}
	return false
}

// forwarding checks that the host forwards packets of the families of the pods.
func (d *diagnosis) forwarding() {
	for _, f := range []struct {
		v4            bool
		value, sysctl string
	}{{true, d.report.Host.Forwarding4, "net.ipv4.ip_forward"}, {false, d.report.Host.Forwarding6, "net.ipv6.conf.all.forwarding"}} {
		if f.value == "0" && d.needsForwarding(f.v4) {
			d.add("forwarding-off", f.sysctl, "the host does not forward packets between the pods and other machines: "+f.sysctl+" is 0",
				fmt.Sprintf("Run `sysctl -w %s=1`, and set it in /etc/sysctl.d so that it stays.", f.sysctl))
		}
	}
}

// bridge checks a bridge to which pods are attached.
func (d *diagnosis) bridge(b *Bridge) {
	subject := "bridge " + b.Name
	used := slices.ContainsFunc(d.report.Networks, func(n Network) bool { return n.Bridge == b.Name && n.Pods > 0 })
	if !used {
		return // the daemon sets up the bridge with the first pod
	}
	if b.Missing {
		d.add("bridge-missing", subject, "the bridge of running pods does not exist", "Delete the running pods of the bridge: the daemon creates the bridge for the pods that replace them.")
		return
	}
	if !b.Up {
		d.add("bridge-down", subject, "the bridge is down", fmt.Sprintf("Run `ip link set %s up`.", b.Name))
	}
	for _, want := range b.WantAddresses {
		if !slices.Contains(b.Addresses, want) {
			d.add("gateway-missing", subject, fmt.Sprintf("the bridge does not have the address %s, which is the gateway of pods", want), fmt.Sprintf("Run `ip addr add %s dev %s`.", want, b.Name))
		}
	}
	localhost := slices.ContainsFunc(d.report.Pods, func(p Pod) bool {
		return p.NotReady == "" && len(p.WantHostPorts) > 0 && slices.ContainsFunc(p.Attachments, func(a Attachment) bool { return a.Network.Bridge == b.Name && a.Network.Localhost })
	})
	if localhost && b.RouteLocalnet == "0" {
		d.add("localhost-ports", subject, fmt.Sprintf("host ports do not answer at 127.0.0.1: net.ipv4.conf.%s.route_localnet is 0", b.Name), fmt.Sprintf("Run `sysctl -w net.ipv4.conf.%s.route_localnet=1`.", b.Name))
	}
	var unknown []string
	for _, p := range b.Ports {
		if p.Type == "veth" && p.Pod == "" {
			unknown = append(unknown, p.Name)
		}
	}
	if unknown != nil && !d.hasUnreadPod() {
		d.warn("unknown-port", subject, fmt.Sprintf("ports belong to no running pod: %s", strings.Join(unknown, ", ")), "Find the owner with `ip -details link show`, and run `ip link del` if there is none.")
	}
}

// hasUnreadPod reports whether a pod exists whose interfaces are not known.
func (d *diagnosis) hasUnreadPod() bool {
	return slices.ContainsFunc(d.report.Pods, func(p Pod) bool { return p.Error != "" || p.NotReady != "" && len(p.Attachments) > 0 })
}
