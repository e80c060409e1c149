// Package netview draws the network of a node, as the daemon has inspected it, for people: as an SVG file, and as a
// graph in the language DOT of Graphviz.
package netview

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	adminv1 "github.com/criserver/criserver/admin/v1"
)

// group has the pods that are drawn together.
type group struct {
	bridge *adminv1.NetworkBridge // nil for pods without a bridge
	pods   []*adminv1.NetworkPod
}

// groups returns the pods by the bridge of their first interface, in the order of the bridges. The last group has the
// pods without a bridge, with the network of the host, and pods that are not ready.
func groups(r *adminv1.InspectNetworkResponse) []group {
	var out []group
	for _, b := range r.GetBridges() {
		out = append(out, group{bridge: b})
	}
	var others group
	for _, p := range r.GetPods() {
		bridge := bridgeOf(p)
		i := slices.IndexFunc(out, func(g group) bool { return g.bridge.GetLink().GetName() == bridge })
		if p.GetNotReadyReason() != "" || p.GetHostNetwork() || i < 0 {
			others.pods = append(others.pods, p)
		} else {
			out[i].pods = append(out[i].pods, p)
		}
	}
	if len(others.pods) > 0 {
		out = append(out, others)
	}
	return out
}

// bridgeOf returns the bridge to which the first interface of the pod is attached, or the recorded bridge if the
// interface is not attached to any bridge.
func bridgeOf(p *adminv1.NetworkPod) string {
	for _, i := range p.GetInterfaces() {
		if b := i.GetPort().GetBridge(); b != "" {
			return b
		}
	}
	for _, a := range p.GetAttachments() {
		if b := a.GetNetwork().GetBridge(); b != "" {
			return b
		}
	}
	return ""
}

// hostPort is a host port of a pod, for both address families.
type hostPort struct{ from, to string }

// hostPorts returns the host ports of a pod in numerical order. A port that is the same in both families occurs once.
func hostPorts(p *adminv1.NetworkPod) []hostPort {
	rules := slices.Clone(p.GetHostPortRules())
	slices.SortStableFunc(rules, func(a, b *adminv1.HostPortRule) int {
		return cmp.Or(cmp.Compare(a.GetHostPort(), b.GetHostPort()), cmp.Compare(a.GetProtocol(), b.GetProtocol()), cmp.Compare(a.GetHostAddress(), b.GetHostAddress()))
	})
	var out []hostPort
	for _, r := range rules {
		from := fmt.Sprintf("%d/%s", r.GetHostPort(), r.GetProtocol())
		if a := r.GetHostAddress(); a != "" {
			from = withPort(a, r.GetHostPort()) + "/" + r.GetProtocol()
		}
		if h := (hostPort{from, fmt.Sprint(r.GetPodPort())}); !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}

func withPort(address string, port uint32) string {
	if strings.Contains(address, ":") {
		address = "[" + address + "]"
	}
	return fmt.Sprintf("%s:%d", address, port)
}

// masquerades returns the sources of all rules for masquerading, without duplicates.
func masquerades(r *adminv1.InspectNetworkResponse) []string {
	var out []string
	for _, p := range r.GetPods() {
		for _, m := range p.GetMasqueradeRules() {
			if !slices.Contains(out, m.GetSource()) {
				out = append(out, m.GetSource())
			}
		}
	}
	return out
}

// interfaces returns the interfaces of a pod except loopback.
func interfaces(p *adminv1.NetworkPod) []*adminv1.NetworkInterface {
	return slices.DeleteFunc(slices.Clone(p.GetInterfaces()), func(i *adminv1.NetworkInterface) bool { return i.GetLink().GetType() == "loopback" })
}

// addresses returns the addresses of an interface without link-local addresses.
func addresses(l *adminv1.NetworkLink) []string {
	return slices.DeleteFunc(slices.Clone(l.GetAddresses()), func(a string) bool { return strings.HasPrefix(a, "fe80:") || strings.HasPrefix(a, "169.254.") })
}

// gateways returns the gateways of the default routes of a pod.
func gateways(p *adminv1.NetworkPod) []string {
	var out []string
	for _, r := range p.GetRoutes() {
		if strings.HasSuffix(r.GetDestination(), "/0") && r.GetGateway() != "" {
			out = append(out, r.GetGateway())
		}
	}
	return out
}

// problemTexts returns the problems of a pod, the error of reading it first.
func problemTexts(p *adminv1.NetworkPod) []string {
	var out []string
	if p.GetError() != "" {
		out = append(out, p.GetError())
	}
	for _, q := range p.GetProblems() {
		if strings.HasPrefix(q.GetSubject(), "/") {
			out = append(out, q.GetMessage()) // a path would fill the line
		} else {
			out = append(out, q.GetSubject()+": "+q.GetMessage())
		}
	}
	return out
}

// hasError reports whether the pod has a problem that is not a warning.
func hasError(p *adminv1.NetworkPod) bool {
	return p.GetError() != "" || containsError(p.GetProblems(), "")
}

// containsError reports whether a problem is an error and its subject ends with a name.
func containsError(problems []*adminv1.NetworkProblem, name string) bool {
	return slices.ContainsFunc(problems, func(q *adminv1.NetworkProblem) bool {
		return q.GetSeverity() == "error" && (name == "" || strings.HasSuffix(" "+q.GetSubject(), " "+name))
	})
}

// podName returns the namespace and the name of a pod.
func podName(p *adminv1.NetworkPod) string { return p.GetNamespace() + "/" + p.GetName() }

// ShortID returns the part of an id that crictl shows.
func ShortID(id string) string { return id[:min(len(id), 13)] }

// Rate returns a rate in the unit in which it is a short number.
func Rate(bits uint64) string {
	units := []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"}
	v, i := float64(bits), 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + units[i]
}

// count returns a number with a noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
