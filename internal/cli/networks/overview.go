package networks

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/internal/cli/networks/netview"
)

// writeNetwork writes the overview of the node, or the details of one pod.
func writeNetwork(t *command.Table, r *adminv1.InspectNetworkResponse, onePod bool) {
	if onePod {
		for _, p := range r.GetPods() {
			writeNetworkPod(t, p)
		}
	} else {
		writeNetworkNode(t, r)
	}
	writeNetworkProblems(t, r)
}

// writeNetworkNode writes tables of the host, the networks, the bridges and the pods.
func writeNetworkNode(t *command.Table, r *adminv1.InspectNetworkResponse) {
	h := r.GetHost()
	t.Row("HOST", "UPLINKS", "IPV4 FORWARDING", "IPV6 FORWARDING", "BR_NETFILTER")
	var uplinks []string
	for _, l := range h.GetUplinks() {
		uplinks = append(uplinks, l.GetName()+" "+commas(globalAddresses(l)))
	}
	t.Row(h.GetName(), commas(uplinks), h.GetIpv4Forwarding(), h.GetIpv6Forwarding(), cmp.Or(h.GetBridgeNfCallIptables(), "not loaded"))
	t.Line("")
	t.Row("NETWORK", "BRIDGE", "SUBNETS", "PLUGINS", "MASQUERADING", "HOST PORTS", "PODS", "FILE")
	for _, n := range r.GetNetworks() {
		t.Row(n.GetName(), n.GetBridge(), commas(n.GetSubnets()), pluginTexts(n), n.GetMasqueradeBy(), n.GetHostPortsBy(), n.GetPods(), networkFile(n))
	}
	t.Line("")
	t.Row("BRIDGE", "ADDRESSES", "MAC", "MTU", "STATE", "PORTS", "STP", "VLAN FILTERING")
	for _, b := range r.GetBridges() {
		l, state := b.GetLink(), linkState(b.GetLink())
		if b.GetMissing() {
			state = "missing"
		}
		t.Row(l.GetName(), commas(globalAddresses(l)), l.GetMac(), l.GetMtu(), state, len(b.GetPorts()), command.YesNo(b.GetStp()), command.YesNo(b.GetVlanFiltering()))
	}
	t.Line("")
	t.Row("POD ID", "NAMESPACE", "NAME", "NETNS", "ADDRESSES", "VETH", "BRIDGE", "HOST PORTS", "RECEIVED", "SENT", "PROBLEMS")
	for _, p := range r.GetPods() {
		writePodRow(t, p)
	}
}

// writePodRow writes the row of a pod in the overview.
func writePodRow(t *command.Table, p *adminv1.NetworkPod) {
	netns, veth, bridge := strconv.FormatUint(p.GetNetnsInode(), 10), "", ""
	switch {
	case p.GetNotReadyReason() != "":
		netns = "not ready"
	case p.GetHostNetwork():
		netns = "host"
	case p.GetNetnsInode() == 0:
		netns = ""
	}
	var all []string
	var received, sent uint64
	for _, i := range p.GetInterfaces() {
		if i.GetLink().GetType() == "loopback" {
			continue
		}
		all = append(all, withoutPrefix(globalAddresses(i.GetLink()))...)
		received += i.GetLink().GetCounters().GetRxBytes()
		sent += i.GetLink().GetCounters().GetTxBytes()
		veth, bridge = cmp.Or(veth, i.GetHost().GetName()), cmp.Or(bridge, i.GetPort().GetBridge())
	}
	problems := len(p.GetProblems())
	if p.GetError() != "" {
		problems++
	}
	t.Row(netview.ShortID(p.GetId()), p.GetNamespace(), p.GetName(), netns, commas(all), veth, bridge, commas(portTexts(p)), byteText(received), byteText(sent), problems)
}

// writeNetworkProblems writes the problems of the node and of the pods with their remedies.
func writeNetworkProblems(t *command.Table, r *adminv1.InspectNetworkResponse) {
	t.Line("")
	count := 0
	write := func(where string, p *adminv1.NetworkProblem) {
		if count++; count == 1 {
			t.Line("PROBLEMS")
		}
		t.Line("%s: %s: %s: %s", p.GetSeverity(), where, p.GetSubject(), p.GetMessage())
		if p.GetRemedy() != "" {
			t.Line("    %s", p.GetRemedy())
		}
	}
	for _, e := range r.GetErrors() {
		write("node", &adminv1.NetworkProblem{Severity: "error", Subject: "inspect", Message: e})
	}
	for _, p := range r.GetProblems() {
		write("node", p)
	}
	for _, pod := range r.GetPods() {
		name := pod.GetNamespace() + "/" + pod.GetName()
		if pod.GetError() != "" {
			write(name, &adminv1.NetworkProblem{Severity: "error", Subject: "inspect", Message: pod.GetError()})
		}
		for _, p := range pod.GetProblems() {
			write(name, p)
		}
	}
	if count == 0 {
		t.Line("No problems.")
	}
}

// pluginTexts returns the plugins of a network, as in "bridge+host-local (built in)", with the binaries of executed
// plugins.
func pluginTexts(n *adminv1.CNINetwork) string {
	var out []string
	for _, p := range n.GetPlugins() {
		text := p.GetType()
		if p.GetIpam() != "" {
			text += "+" + p.GetIpam()
		}
		switch {
		case p.GetBuiltin():
			text += " (built in)"
		case p.GetPath() == "":
			text += " (not installed)"
		default:
			text += " (" + p.GetPath() + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// networkFile returns the file of a network, or why there is none.
func networkFile(n *adminv1.CNINetwork) string {
	switch {
	case n.GetIsDefaultBridge():
		return "none, default bridge"
	case n.GetFile() == "":
		return "not configured any more"
	}
	return n.GetFile()
}

// portTexts returns the host ports of a pod, each once for both families.
func portTexts(p *adminv1.NetworkPod) []string {
	var out []string
	for _, r := range p.GetHostPortRules() {
		text := fmt.Sprintf("%d→%d/%s", r.GetHostPort(), r.GetPodPort(), r.GetProtocol())
		if r.GetHostAddress() != "" {
			text = hostPortText(r) + fmt.Sprintf("→%d/%s", r.GetPodPort(), r.GetProtocol())
		}
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// globalAddresses returns the addresses of an interface without link-local addresses.
func globalAddresses(l *adminv1.NetworkLink) []string {
	return slices.DeleteFunc(slices.Clone(l.GetAddresses()), func(a string) bool { return strings.HasPrefix(a, "fe80:") })
}

func withoutPrefix(addresses []string) []string {
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i], _, _ = strings.Cut(a, "/")
	}
	return out
}

// linkState returns the state of an interface in one word: the administrative state if it is down.
func linkState(l *adminv1.NetworkLink) string {
	if !l.GetUp() {
		return "down"
	}
	if !l.GetCarrier() {
		return "no carrier"
	}
	return l.GetState()
}

func commas(list []string) string { return strings.Join(list, ", ") }

// byteText returns a number of bytes in the unit in which it is a short number.
func byteText(n uint64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
