package nri

import (
	"context"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPod is for a pod that is ready and not shown yet. An error is a plugin's
// refusal. Settled or RemovePod must follow.
func (m *Manager) RunPod(ctx context.Context, p Pod) error {
	return m.relay(ctx, func() { m.making.addPod(p) }, func(ctx context.Context) error {
		return m.nri.RunPodSandbox(ctx, &adaptation.RunPodSandboxRequest{Pod: podMessage(p)})
	})
}

// Settled is for a pod or container that is shown from now on.
func (m *Manager) Settled(id string) { m.making.done(id) }

// UpdatePod comes before the limits of a pod are changed. An error is a
// plugin's refusal.
func (m *Manager) UpdatePod(ctx context.Context, p Pod, overhead, resources *cri.LinuxContainerResources) error {
	return m.relay(ctx, nil, func(ctx context.Context) error {
		_, err := m.nri.UpdatePodSandbox(ctx, &adaptation.UpdatePodSandboxRequest{
			Pod: podMessage(p), OverheadLinuxResources: limitsMessage(overhead, nil), LinuxResources: limitsMessage(resources, nil),
		})
		return err
	})
}

// PodUpdated comes after them.
func (m *Manager) PodUpdated(ctx context.Context, p Pod) {
	m.quietly(ctx, p.ID, m.relay(ctx, nil, func(ctx context.Context) error {
		return m.nri.PostUpdatePodSandbox(ctx, &adaptation.PostUpdatePodSandboxRequest{Pod: podMessage(p)})
	}))
}

// StopPod is for a pod whose containers have ended, and which still has its
// namespaces and network.
func (m *Manager) StopPod(ctx context.Context, p Pod) {
	m.quietly(ctx, p.ID, m.relay(ctx, nil, func(ctx context.Context) error {
		return m.nri.StopPodSandbox(ctx, &adaptation.StopPodSandboxRequest{Pod: podMessage(p)})
	}))
}

// RemovePod is for a pod that has gone, also one that could not be made.
func (m *Manager) RemovePod(ctx context.Context, p Pod) {
	m.quietly(ctx, p.ID, m.relay(ctx, func() { m.making.done(p.ID) }, func(ctx context.Context) error {
		return m.nri.RemovePodSandbox(ctx, &adaptation.RemovePodSandboxRequest{Pod: podMessage(p)})
	}))
}

func podMessages(pods []Pod) []*api.PodSandbox {
	out := make([]*api.PodSandbox, len(pods))
	for i, p := range pods {
		out[i] = podMessage(p)
	}
	return out
}

func podMessage(p Pod) *api.PodSandbox {
	md := p.Config.GetMetadata()
	return &api.PodSandbox{
		Id: p.ID, Name: md.GetName(), Uid: md.GetUid(), Namespace: md.GetNamespace(),
		Labels: p.Config.GetLabels(), Annotations: p.Config.GetAnnotations(),
		RuntimeHandler: p.RuntimeHandler, Pid: uint32(p.PID), Ips: p.IPs,
		Linux: &api.LinuxPodSandbox{
			PodOverhead: limitsMessage(p.Overhead, nil), PodResources: limitsMessage(p.Resources, nil),
			CgroupParent: p.CgroupParent, Namespaces: api.FromOCILinuxNamespaces(p.Namespaces),
		},
	}
}
