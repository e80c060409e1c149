package networks

import (
	"fmt"
	"net/netip"
	"strings"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/internal/cli/networks/netview"
)

// writeNetworkPod writes everything about the network of a pod.
func writeNetworkPod(t *command.Table, p *adminv1.NetworkPod) {
	t.Row("pod", p.GetNamespace()+"/"+p.GetName())
	t.Row("id", p.GetId())
	if p.GetNotReadyReason() != "" {
		t.Row("not ready", p.GetNotReadyReason())
	}
	switch {
	case p.GetHostNetwork():
		t.Row("network namespace", "that of the host")
	case p.GetNetnsInode() != 0:
		t.Row("network namespace", fmt.Sprintf("%s (inode %d)", p.GetNetnsPath(), p.GetNetnsInode()))
	default:
		t.Row("network namespace", p.GetNetnsPath())
	}
	if p.GetNetnsName() != "" {
		t.Row("name of the namespace", p.GetNetnsName())
	}
	t.Row("containers", commas(p.GetContainers()))
	if len(p.GetInterfaces()) > 0 {
		writeInterfaces(t, p)
		writeRoutes(t, p)
	}
	writeAttachments(t, p)
	writeRules(t, p)
	writeDNS(t, p.GetDns())
	if len(p.GetShaping()) > 0 {
		t.Line("")
		t.Row("TRAFFIC SHAPING", "RATE", "INTERFACE", "DEVICE OF THE HOST")
		for _, s := range p.GetShaping() {
			t.Row(s.GetDirection(), netview.Rate(s.GetRate()), s.GetInterface(), s.GetDevice())
		}
	}
}

// writeInterfaces writes the interfaces of a pod, their other ends on the host, and the counters.
func writeInterfaces(t *command.Table, p *adminv1.NetworkPod) {
	t.Line("")
	t.Row("IN THE POD", "INDEX", "TYPE", "MAC", "MTU", "STATE", "ADDRESSES")
	for _, i := range p.GetInterfaces() {
		l := i.GetLink()
		t.Row(l.GetName(), l.GetIndex(), l.GetType(), l.GetMac(), l.GetMtu(), linkState(l), commas(l.GetAddresses()))
	}
	t.Line("")
	t.Row("ON THE HOST", "INDEX", "TYPE", "MAC", "MTU", "STATE", "OTHER END", "BRIDGE", "PORT")
	for _, i := range p.GetInterfaces() {
		if l := i.GetHost(); l != nil {
			t.Row(l.GetName(), l.GetIndex(), l.GetType(), l.GetMac(), l.GetMtu(), linkState(l), i.GetLink().GetName(), i.GetPort().GetBridge(), portText(i.GetPort()))
		}
	}
	t.Line("")
	t.Row("COUNTERS", "RECEIVED", "PACKETS", "ERRORS", "DROPPED", "SENT", "PACKETS", "ERRORS", "DROPPED")
	for _, i := range p.GetInterfaces() {
		c := i.GetLink().GetCounters()
		t.Row(i.GetLink().GetName(), byteText(c.GetRxBytes()), c.GetRxPackets(), c.GetRxErrors(), c.GetRxDropped(),
			byteText(c.GetTxBytes()), c.GetTxPackets(), c.GetTxErrors(), c.GetTxDropped())
	}
}

// portText returns the state and the settings of a bridge port.
func portText(p *adminv1.NetworkPort) string {
	if p == nil {
		return ""
	}
	out := []string{p.GetState()}
	if p.GetHairpin() {
		out = append(out, "hairpin")
	}
	if p.GetIsolated() {
		out = append(out, "isolated")
	}
	for _, v := range p.GetVlans() {
		out = append(out, "VLAN "+v)
	}
	return commas(out)
}

func writeRoutes(t *command.Table, p *adminv1.NetworkPod) {
	t.Line("")
	t.Row("ROUTE", "GATEWAY", "INTERFACE", "SOURCE", "METRIC")
	for _, r := range p.GetRoutes() {
		destination := r.GetDestination()
		if strings.HasSuffix(destination, "/0") {
			destination = "default (" + destination + ")"
		}
		metric := ""
		if r.GetMetric() != 0 {
			metric = fmt.Sprint(r.GetMetric())
		}
		t.Row(destination, r.GetGateway(), r.GetInterface(), r.GetSource(), metric)
	}
}

func writeAttachments(t *command.Table, p *adminv1.NetworkPod) {
	if len(p.GetAttachments()) == 0 {
		return
	}
	t.Line("")
	t.Row("CNI NETWORK", "VERSION", "INTERFACE", "PLUGINS", "FILE", "RESULT")
	for _, a := range p.GetAttachments() {
		result := a.GetResultFile()
		if !a.GetResultFileExists() {
			result = "missing"
		}
		t.Row(a.GetNetwork().GetName(), a.GetNetwork().GetCniVersion(), a.GetInterface(), pluginTexts(a.GetNetwork()), networkFile(a.GetNetwork()), result)
	}
}

func writeRules(t *command.Table, p *adminv1.NetworkPod) {
	if len(p.GetMasqueradeRules()) > 0 {
		t.Line("")
		t.Row("MASQUERADING OF", "EXCEPT TO", "RULE")
		for _, m := range p.GetMasqueradeRules() {
			t.Row(m.GetSource(), commas(m.GetExcept()), m.GetProgram()+" "+m.GetChain())
		}
	}
	if len(p.GetHostPortRules()) > 0 {
		t.Line("")
		t.Row("HOST PORT", "PROTOCOL", "FAMILY", "POD", "RULE")
		for _, r := range p.GetHostPortRules() {
			t.Row(hostPortText(r), r.GetProtocol(), r.GetFamily(), joinPort(r.GetPodAddress(), r.GetPodPort()), r.GetProgram()+" "+r.GetChain())
		}
	}
}

// hostPortText returns the address and the port of the host.
func hostPortText(r *adminv1.HostPortRule) string {
	if r.GetHostAddress() == "" {
		return fmt.Sprintf("*:%d", r.GetHostPort())
	}
	return joinPort(r.GetHostAddress(), r.GetHostPort())
}

func joinPort(address string, port uint32) string {
	if a, err := netip.ParseAddr(address); err == nil {
		return netip.AddrPortFrom(a, uint16(port)).String()
	}
	return fmt.Sprintf("%s:%d", address, port)
}

func writeDNS(t *command.Table, d *adminv1.NetworkDNS) {
	if d.GetPath() == "" {
		return
	}
	t.Line("")
	t.Row("DNS SERVERS", "SEARCHES", "OPTIONS", "SOURCE", "FILE")
	source := "pod"
	if d.GetFromHost() {
		source = "copy of the host's file"
	}
	t.Row(commas(d.GetServers()), commas(d.GetSearches()), commas(d.GetOptions()), source, d.GetPath())
}
