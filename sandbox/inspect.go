package sandbox

import (
	"context"
	"slices"

	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/network/inspect"
	"github.com/criserver/criserver/sandbox/podfiles"
)

// InspectNetwork reports the state of the networks of the node and of all pods, with the problems. It changes nothing
// and holds no lock.
func (m *Manager) InspectNetwork(ctx context.Context) *inspect.Report {
	in := inspect.Input{Networks: m.net.Networks(), NetworkError: m.net.Status()}
	v := m.view.Load()
	for _, p := range v.sorted {
		in.Pods = append(in.Pods, m.inspectInput(v.entries[p.ID]))
	}
	r := inspect.Gather(ctx, in)
	m.forgetChanged(v, r)
	inspect.Diagnose(r)
	return r
}

// forgetChanged removes the pods that were stopped or removed while the report was made. Their missing parts are no
// problem.
func (m *Manager) forgetChanged(before *view, r *inspect.Report) {
	after := m.view.Load()
	r.Pods = slices.DeleteFunc(r.Pods, func(p inspect.Pod) bool {
		e := after.entries[p.ID]
		return e == nil || e.hidden || e.rec.ready() != before.entries[p.ID].rec.ready()
	})
}

// inspectInput returns the network of a pod as the record of the pod describes it.
func (m *Manager) inspectInput(e *entry) inspect.PodInput {
	in := inspect.PodInput{
		ID: e.rec.ID, Namespace: e.spec.Name.Namespace, Name: e.spec.Name.Name,
		NotReady: e.rec.notReadyReason(), NetNS: e.pod.Namespaces.Net, NetNSName: e.rec.NetNSName,
		HostPorts: e.spec.PortMappings, Bandwidth: e.spec.Bandwidth, Guest: m.settings.Load().HasGuests(e.pod.EffectiveHandler()),
	}
	if e.rec.NoHostPorts {
		in.HostPorts = nil
	}
	for _, i := range e.rec.attachments() {
		a := inspect.AttachmentInput{Interface: i.Name, Result: i.Result}
		if i.Name == network.IfName {
			a.Result = e.rec.CNIResult
		}
		if a.Network, a.Error = m.net.PlanDetails(i); a.Error == nil {
			a.ResultFile = m.net.ResultFile(e.rec.ID, a.Network.Name, i.Name)
		}
		in.Attachments = append(in.Attachments, a)
	}
	if e.unreadable || !e.rec.ready() {
		return in
	}
	in.DNS = inspect.DNSInput{Path: e.pod.ResolvConf, FromHost: e.spec.DNS == nil}
	if want, err := podfiles.NewResolvConf(e.spec.DNS); err == nil {
		in.DNS.Want = want
	} else {
		in.DNS.Path = "" // the host's file cannot be read, so nothing is known about the copy
	}
	return in
}
