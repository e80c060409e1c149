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

// newPlugins returns nil where NRI is off.
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
		// Another runtime of this node, which has the same default.
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

// pluginRuntime shows pods and containers to plugins.
type pluginRuntime struct{ p *parts }

func (r pluginRuntime) Pods() []nri.Pod {
	var out []nri.Pod
	for _, p := range r.p.pods.List() {
		out = append(out, podForPlugins(p))
	}
	return out
}

func (r pluginRuntime) Containers() []nri.Container {
	var out []nri.Container
	for _, c := range r.p.containers.List() {
		out = append(out, containerForPlugins(c, nil))
	}
	return out
}

func (r pluginRuntime) Update(ctx context.Context, u nri.Update) error {
	return r.p.containers.SetLimits(ctx, u.ContainerID, container.Limits{CRI: u.Limits, Extra: u.Extra})
}

// podPlugins is what pods see of plugins.
type podPlugins struct{ nri *nri.Manager }

func (a podPlugins) Run(ctx context.Context, p *sandbox.Pod) error {
	return a.nri.RunPod(ctx, podForPlugins(p))
}

func (a podPlugins) Update(ctx context.Context, p *sandbox.Pod, overhead, resources *cri.LinuxContainerResources) error {
	return a.nri.UpdatePod(ctx, podForPlugins(p), overhead, resources)
}

func (a podPlugins) Updated(ctx context.Context, p *sandbox.Pod) {
	a.nri.PodUpdated(ctx, podForPlugins(p))
}
func (a podPlugins) Shown(p *sandbox.Pod) { a.nri.Settled(p.ID) }
func (a podPlugins) Stopped(ctx context.Context, p *sandbox.Pod) {
	a.nri.StopPod(ctx, podForPlugins(p))
}

func (a podPlugins) Removed(ctx context.Context, p *sandbox.Pod) {
	a.nri.RemovePod(ctx, podForPlugins(p))
}

// containerPlugins is what containers see of plugins.
type containerPlugins struct {
	nri  *nri.Manager
	pods *podAdapter
}

func (a containerPlugins) Any() bool { return a.nri.Any() }

func (a containerPlugins) Create(ctx context.Context, s *container.Snapshot, spec *specs.Spec) (container.Adjustment, error) {
	made := func() (*specs.Spec, error) { return spec, nil }
	adj, err := a.nri.CreateContainer(ctx, a.pod(s), containerForPlugins(s, made), spec)
	if err != nil {
		return container.Adjustment{}, err
	}
	out := container.Adjustment{
		Asked:  adj.Asked,
		Limits: container.Limits{CRI: adj.Limits, Extra: adj.Extra}, OOMScoreAdj: adj.OOMScoreAdj, CDIDevices: adj.CDIDevices,
		BlockIOClass: adj.BlockIOClass, RDTClass: adj.RDTClass,
	}
	return out, a.nri.Others(ctx, adj.Others)
}

func (a containerPlugins) Created(ctx context.Context, s *container.Snapshot) {
	a.nri.ContainerCreated(ctx, a.pod(s), containerForPlugins(s, nil))
}

func (a containerPlugins) Start(ctx context.Context, s *container.Snapshot) error {
	return a.nri.StartContainer(ctx, a.pod(s), containerForPlugins(s, nil))
}

func (a containerPlugins) Started(ctx context.Context, s *container.Snapshot) {
	a.nri.ContainerStarted(ctx, a.pod(s), containerForPlugins(s, nil))
}

func (a containerPlugins) Update(ctx context.Context, s *container.Snapshot, l container.Limits) (container.Limits, func(context.Context), error) {
	own, others, err := a.nri.UpdateContainer(ctx, a.pod(s), containerForPlugins(s, nil), l.CRI)
	return container.Limits{CRI: own.Limits, Extra: own.Extra}, a.others(s, others), err
}

func (a containerPlugins) Updated(ctx context.Context, s *container.Snapshot) {
	a.nri.ContainerUpdated(ctx, a.pod(s), containerForPlugins(s, nil))
}

func (a containerPlugins) Stopped(ctx context.Context, s *container.Snapshot) func(context.Context) {
	return a.others(s, a.nri.StopContainer(ctx, a.pod(s), containerForPlugins(s, nil)))
}

func (a containerPlugins) Removed(ctx context.Context, s *container.Snapshot, spec *specs.Spec) {
	was := func() (*specs.Spec, error) { return spec, nil }
	if spec == nil {
		was = nil
	}
	a.nri.RemoveContainer(ctx, a.pod(s), containerForPlugins(s, was))
}

// others is nil when there is nothing to do. What was asked for has been done
// by then, so that a failure is no more than worth a line.
func (a containerPlugins) others(s *container.Snapshot, updates []nri.Update) func(context.Context) {
	if len(updates) == 0 {
		return nil
	}
	return func(ctx context.Context) {
		if err := a.nri.Others(ctx, updates); err != nil {
			logrus.WithContext(ctx).WithField("container", s.ID).WithError(err).Warn("limits that plugins want for other containers cannot be set")
		}
	}
}

// pod is what is left of a pod's description when the pod has gone.
func (a containerPlugins) pod(s *container.Snapshot) nri.Pod {
	if p, err := a.pods.pods.Get(s.PodID); err == nil {
		return podForPlugins(p)
	}
	return nri.Pod{ID: s.PodID, Config: s.PodConfig}
}

func podForPlugins(p *sandbox.Pod) nri.Pod {
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

// containerForPlugins reads the container's config from where it stands, unless
// it is at hand.
func containerForPlugins(s *container.Snapshot, spec func() (*specs.Spec, error)) nri.Container {
	if spec == nil {
		spec = s.Spec
	}
	return nri.Container{
		ID: s.ID, PodID: s.PodID, Config: s.Config, Spec: spec, Limits: s.Resources, Extra: s.Extra,
		Image: s.ImageRef, ImageID: s.ImageID, State: stateForPlugins(s.State), PID: s.PID,
		CreatedAt: s.CreatedAt, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt,
		ExitCode: s.ExitCode, Reason: s.Reason, Message: s.Message,
	}
}

func stateForPlugins(s container.State) nri.State {
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
