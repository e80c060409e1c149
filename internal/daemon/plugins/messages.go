package plugins

import (
	"strings"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/nri"
	"github.com/criserver/criserver/sandbox"
)

// nriPod returns the message about a pod.
func nriPod(p *sandbox.Pod) *api.PodSandbox {
	md := p.Config.GetMetadata()
	linux := &api.LinuxPodSandbox{
		CgroupParent: p.CgroupParent,
		PodOverhead:  nri.Limits{CRI: p.Overhead}.Message(), PodResources: nri.Limits{CRI: p.Resources}.Message(),
	}
	for _, n := range []*api.LinuxNamespace{
		{Type: string(specs.NetworkNamespace), Path: p.NetNS()},
		{Type: string(specs.IPCNamespace), Path: p.Namespaces.IPC},
		{Type: string(specs.UTSNamespace), Path: p.Namespaces.UTS},
		{Type: string(specs.PIDNamespace), Path: p.Namespaces.PID},
		{Type: string(specs.UserNamespace), Path: p.Namespaces.User},
	} {
		if n.GetPath() != "" {
			linux.Namespaces = append(linux.Namespaces, n)
		}
	}
	out := &api.PodSandbox{
		Id: p.ID, Name: md.GetName(), Uid: md.GetUid(), Namespace: md.GetNamespace(), Labels: p.Config.GetLabels(),
		Annotations: p.Config.GetAnnotations(), RuntimeHandler: p.RuntimeHandler, Pid: uint32(p.PausePID), Linux: linux,
	}
	for _, ip := range p.IPs {
		out.Ips = append(out.Ips, ip.String())
	}
	return out
}

// nriStates does not contain container.Unknown, which is the zero value of the protocol.
var nriStates = map[container.State]api.ContainerState{
	container.Created: api.ContainerState_CONTAINER_CREATED,
	container.Running: api.ContainerState_CONTAINER_RUNNING,
	container.Exited:  api.ContainerState_CONTAINER_STOPPED,
}

// nriContainer describes a container. The description reads the OCI config only for an event.
func nriContainer(s *container.Snapshot) *nri.Container {
	_, digest, _ := strings.Cut(s.ImageRef, "@")
	return &nri.Container{
		Status: &api.Container{
			Id: s.ID, PodSandboxId: s.PodID, State: nriStates[s.State], Pid: uint32(s.PID),
			Image:     &api.Image{Name: s.ImageRef, Digest: digest, ConfigDigest: s.ImageID},
			CreatedAt: unixNano(s.CreatedAt), StartedAt: unixNano(s.StartedAt), FinishedAt: unixNano(s.FinishedAt),
			ExitCode: s.ExitCode, StatusReason: s.Reason, StatusMessage: s.Message,
		},
		Config: s.Config, Spec: s.Spec, Limits: nri.Limits{CRI: s.Resources, Extra: s.Extra},
	}
}

// unixNano returns the time in nanoseconds since 1970, or 0 for the zero time.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
