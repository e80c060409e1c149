package daemon

import (
	"context"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/nri"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/server"
)

// newPlugins returns the manager of NRI plugins, or nil if NRI is disabled.
func newPlugins(p *parts) (*nri.Manager, error) {
	n := p.settings.NRI
	if !n.Enable {
		return nil, nil
	}
	c := nri.Config{
		Socket: n.Socket, PluginDir: n.PluginDir, PluginConfigDir: n.PluginConfigDir,
		RegistrationTimeout: n.RegistrationTimeout, RequestTimeout: n.RequestTimeout,
		Name: server.Name, Version: p.version, Runtime: pluginRuntime{p},
	}
	if n.DisableConnections {
		c.Socket = ""
	}
	if c.Socket != "" && nri.SocketInUse(c.Socket) {
		// Another runtime of this node has the same default socket.
		logrus.WithField("socket", c.Socket).Error("another process serves nri.socket: no plugin can connect to this daemon; set nri.socket, or nri.enable = false")
		c.Socket = ""
	}
	if n.Validator {
		c.Validator = &nri.Rules{
			RejectHooks: n.RejectHooks, RejectNamespaces: n.RejectNamespaces, RejectSysctls: n.RejectSysctls,
			RejectSeccomp: n.RejectSeccomp, RequiredPlugins: n.RequiredPlugins, TolerateMissing: n.TolerateMissing,
		}
	}
	return nri.New(c)
}

// pluginRuntime implements nri.Runtime.
type pluginRuntime struct{ parts *parts }

func (r pluginRuntime) Pods() []nri.Pod {
	var out []nri.Pod
	for _, p := range r.parts.pods.List() {
		out = append(out, nriPod(p))
	}
	return out
}

func (r pluginRuntime) Containers() []nri.Container {
	var out []nri.Container
	for _, s := range r.parts.containers.List() {
		out = append(out, nriContainer(s))
	}
	return out
}

func (r pluginRuntime) Update(ctx context.Context, u nri.Update) error {
	return r.parts.containers.SetLimits(ctx, u.ContainerID, container.Limits(u.Limits))
}

// podPlugins implements sandbox.Plugins.
type podPlugins struct{ nri *nri.Manager }

func (a podPlugins) Run(ctx context.Context, p *sandbox.Pod) error {
	return a.nri.RunPod(ctx, nriPod(p))
}

func (a podPlugins) Published(p *sandbox.Pod) { a.nri.PodListed(p.ID) }

func (a podPlugins) Update(ctx context.Context, p *sandbox.Pod, overhead, resources *cri.LinuxContainerResources) error {
	return a.nri.UpdatePod(ctx, nriPod(p), overhead, resources)
}

func (a podPlugins) Updated(ctx context.Context, p *sandbox.Pod) {
	a.nri.PodUpdated(ctx, nriPod(p))
}

func (a podPlugins) Stopped(ctx context.Context, p *sandbox.Pod) {
	a.nri.StopPod(ctx, nriPod(p))
}

func (a podPlugins) Removed(ctx context.Context, p *sandbox.Pod) {
	a.nri.RemovePod(ctx, nriPod(p))
}

// containerPlugins implements container.Plugins.
type containerPlugins struct {
	nri  *nri.Manager
	pods *podAdapter
}

func (a containerPlugins) Any() bool { return a.nri.HasPlugins() }

func (a containerPlugins) Create(ctx context.Context, s *container.Snapshot, spec *specs.Spec) (container.Adjustment, error) {
	c := nriContainer(s)
	c.Spec = func() (*specs.Spec, error) { return spec, nil } // the OCI config is not on disk yet
	adj, err := a.nri.CreateContainer(ctx, a.pod(s), c, spec)
	if err != nil {
		return container.Adjustment{}, err
	}
	out := container.Adjustment{
		Asked: adj.Consulted, Limits: container.Limits(adj.Limits), OOMScoreAdj: adj.OOMScoreAdj,
		BlockIOClass: adj.BlockIOClass, RDTClass: adj.RDTClass, CDIDevices: adj.CDIDevices,
	}
	return out, a.nri.UpdateOthers(ctx, adj.OtherUpdates)
}

func (a containerPlugins) Created(ctx context.Context, s *container.Snapshot) {
	a.nri.ContainerCreated(ctx, a.pod(s), nriContainer(s))
}

func (a containerPlugins) Start(ctx context.Context, s *container.Snapshot) error {
	return a.nri.StartContainer(ctx, a.pod(s), nriContainer(s))
}

func (a containerPlugins) Started(ctx context.Context, s *container.Snapshot) {
	a.nri.ContainerStarted(ctx, a.pod(s), nriContainer(s))
}

func (a containerPlugins) Update(ctx context.Context, s *container.Snapshot, l container.Limits) (container.Limits, func(context.Context), error) {
	limits, others, err := a.nri.UpdateContainer(ctx, a.pod(s), nriContainer(s), l.CRI)
	return container.Limits(limits), a.updateOthers(s, others), err
}

func (a containerPlugins) Updated(ctx context.Context, s *container.Snapshot) {
	a.nri.ContainerUpdated(ctx, a.pod(s), nriContainer(s))
}

func (a containerPlugins) Stopped(ctx context.Context, s *container.Snapshot) func(context.Context) {
	return a.updateOthers(s, a.nri.StopContainer(ctx, a.pod(s), nriContainer(s)))
}

func (a containerPlugins) Removed(ctx context.Context, s *container.Snapshot, spec *specs.Spec) {
	c := nriContainer(s)
	if spec != nil {
		c.Spec = func() (*specs.Spec, error) { return spec, nil } // the bundle has been removed
	}
	a.nri.RemoveContainer(ctx, a.pod(s), c)
}

// updateOthers returns a function that applies updates of other containers, or nil if there
// are none. The request for s has succeeded before the function is called, so errors are only
// logged.
func (a containerPlugins) updateOthers(s *container.Snapshot, updates []nri.Update) func(context.Context) {
	if len(updates) == 0 {
		return nil
	}
	return func(ctx context.Context) {
		if err := a.nri.UpdateOthers(ctx, updates); err != nil {
			logrus.WithContext(ctx).WithField("container", s.ID).WithError(err).Warn("set limits of other containers that plugins request")
		}
	}
}

// pod describes the pod of a container. If the pod has been removed, the description contains
// what the container knows of the pod.
func (a containerPlugins) pod(s *container.Snapshot) nri.Pod {
	if p, err := a.pods.pods.Get(s.PodID); err == nil {
		return nriPod(p)
	}
	return nri.Pod{ID: s.PodID, Config: s.PodConfig}
}

func nriPod(p *sandbox.Pod) nri.Pod {
	out := nri.Pod{
		ID: p.ID, Config: p.Config, RuntimeHandler: p.RuntimeHandler, CgroupParent: p.CgroupParent, PID: p.PausePID,
		Overhead: p.Overhead, Resources: p.Resources,
	}
	for _, ip := range p.IPs {
		out.IPs = append(out.IPs, ip.String())
	}
	for _, n := range []specs.LinuxNamespace{
		{Type: specs.NetworkNamespace, Path: p.Namespaces.Net},
		{Type: specs.IPCNamespace, Path: p.Namespaces.IPC},
		{Type: specs.UTSNamespace, Path: p.Namespaces.UTS},
		{Type: specs.PIDNamespace, Path: p.Namespaces.PID},
		{Type: specs.UserNamespace, Path: p.Namespaces.User},
	} {
		if n.Path != "" {
			out.Namespaces = append(out.Namespaces, n)
		}
	}
	return out
}

// nriContainer describes a container. The description reads the OCI config from the bundle.
func nriContainer(s *container.Snapshot) nri.Container {
	return nri.Container{
		ID: s.ID, PodID: s.PodID, Config: s.Config, Spec: s.Spec,
		Limits: nri.Limits{CRI: s.Resources, Extra: s.Extra},
		Image:  s.ImageRef, ImageID: s.ImageID, State: nriState(s.State), PID: s.PID,
		CreatedAt: s.CreatedAt, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt,
		ExitCode: s.ExitCode, Reason: s.Reason, Message: s.Message,
	}
}

func nriState(s container.State) nri.State {
	switch s {
	case container.Created:
		return nri.Created
	case container.Running:
		return nri.Running
	case container.Exited:
		return nri.Stopped
	}
	return nri.Unknown
}
