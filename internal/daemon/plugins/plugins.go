// Package plugins connects the NRI plugins with the managers of pods and containers: it implements the interfaces that
// the managers notify, and describes pods and containers with the messages of the NRI protocol.
package plugins

import (
	"context"

	"github.com/containerd/nri/pkg/api"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/nri"
	"github.com/criserver/criserver/sandbox"
)

// Config configures the manager of the plugins.
type Config struct {
	Settings config.NRI
	Name     string // the name of the daemon
	Version  string // the version of the daemon
	Managers *Managers
	Observer nri.Observer // may be nil
}

// Managers are the managers whose pods and containers plugins see. The managers need the manager of the plugins,
// so the daemon builds them later, and sets the fields before any part runs.
type Managers struct {
	Pods interface {
		List() []*sandbox.Pod
		Get(id string) (*sandbox.Pod, error)
	}
	Containers interface {
		List() []*container.Snapshot
		SetLimits(ctx context.Context, id string, l container.Limits) error
	}
}

// New returns the manager of NRI plugins, or nil if NRI is disabled.
func New(o Config) (*nri.Manager, error) {
	n := o.Settings
	if !n.Enable {
		return nil, nil
	}
	c := nri.Config{
		Socket: n.Socket, PluginDir: n.PluginDir, PluginConfigDir: n.PluginConfigDir,
		RegistrationTimeout: n.RegistrationTimeout, RequestTimeout: n.RequestTimeout,
		Name: o.Name, Version: o.Version, Runtime: pluginRuntime{o.Managers}, Observer: o.Observer,
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
type pluginRuntime struct{ managers *Managers }

func (r pluginRuntime) Pods() (out []*api.PodSandbox) {
	for _, p := range r.managers.Pods.List() {
		out = append(out, nriPod(p))
	}
	return out
}

func (r pluginRuntime) Containers() (out []*nri.Container) {
	for _, s := range r.managers.Containers.List() {
		out = append(out, nriContainer(s))
	}
	return out
}

func (r pluginRuntime) Update(ctx context.Context, u nri.Update) error {
	return r.managers.Containers.SetLimits(ctx, u.ContainerID, container.Limits(u.Limits))
}

// startNRI begins the step of an event that plugins receive.
func startNRI(ctx context.Context, event api.Event) (context.Context, *steps.Step) {
	return steps.Start(ctx, steps.NRI, steps.Event(event.String()))
}

// notifyNRI notifies plugins of an event that they can neither change nor refuse.
func notifyNRI(ctx context.Context, m *nri.Manager, event api.Event, pod *api.PodSandbox, c *nri.Container) {
	ctx, step := startNRI(ctx, event)
	m.Notify(ctx, event, pod, c)
	step.End(nil)
}

// podPlugins implements sandbox.Plugins.
type podPlugins struct{ nri *nri.Manager }

// ForPods returns the plugins that m manages, for sandbox.Config.
func ForPods(m *nri.Manager) sandbox.Plugins { return podPlugins{m} }

func (a podPlugins) Run(ctx context.Context, p *sandbox.Pod) error {
	ctx, step := startNRI(ctx, api.Event_RUN_POD_SANDBOX)
	err := a.nri.RunPod(ctx, nriPod(p))
	step.End(err)
	return err
}

func (a podPlugins) Published(_ context.Context, p *sandbox.Pod) { a.nri.Listed(p.ID) }

func (a podPlugins) Update(ctx context.Context, p *sandbox.Pod, overhead, resources *cri.LinuxContainerResources) error {
	ctx, step := startNRI(ctx, api.Event_UPDATE_POD_SANDBOX)
	err := a.nri.UpdatePod(ctx, nriPod(p), overhead, resources)
	step.End(err)
	return err
}

func (a podPlugins) Updated(ctx context.Context, p *sandbox.Pod) {
	notifyNRI(ctx, a.nri, api.Event_POST_UPDATE_POD_SANDBOX, nriPod(p), nil)
}

func (a podPlugins) Stopped(ctx context.Context, p *sandbox.Pod) {
	notifyNRI(ctx, a.nri, api.Event_STOP_POD_SANDBOX, nriPod(p), nil)
}

func (a podPlugins) Removed(ctx context.Context, p *sandbox.Pod) {
	notifyNRI(ctx, a.nri, api.Event_REMOVE_POD_SANDBOX, nriPod(p), nil)
}

// containerPlugins implements container.Plugins.
type containerPlugins struct {
	nri      *nri.Manager
	managers *Managers
}

// ForContainers returns the plugins that m manages, for container.Config. The caller passes the same managers to New.
func ForContainers(m *nri.Manager, managers *Managers) container.Plugins {
	return containerPlugins{m, managers}
}

func (a containerPlugins) HasPlugins() bool { return a.nri.HasPlugins() }

func (a containerPlugins) Create(ctx context.Context, s *container.Snapshot, spec *specs.Spec) (*bundle.Adjustment, error) {
	ctx, step := startNRI(ctx, api.Event_CREATE_CONTAINER)
	adj, others, err := a.nri.CreateContainer(ctx, a.pod(s), nriContainer(s), spec)
	if step.End(err); err != nil {
		return nil, err
	}
	return (*bundle.Adjustment)(adj), a.nri.UpdateOthers(ctx, others)
}

func (a containerPlugins) Created(ctx context.Context, s *container.Snapshot) {
	a.nri.Listed(s.ID)
	notifyNRI(ctx, a.nri, api.Event_POST_CREATE_CONTAINER, a.pod(s), nriContainer(s))
}

func (a containerPlugins) Start(ctx context.Context, s *container.Snapshot) error {
	ctx, step := startNRI(ctx, api.Event_START_CONTAINER)
	err := a.nri.StartContainer(ctx, a.pod(s), nriContainer(s))
	step.End(err)
	return err
}

func (a containerPlugins) Started(ctx context.Context, s *container.Snapshot) {
	notifyNRI(ctx, a.nri, api.Event_POST_START_CONTAINER, a.pod(s), nriContainer(s))
}

func (a containerPlugins) Update(ctx context.Context, s *container.Snapshot, l container.Limits) (container.Limits, func(context.Context), error) {
	ctx, step := startNRI(ctx, api.Event_UPDATE_CONTAINER)
	limits, others, err := a.nri.UpdateContainer(ctx, a.pod(s), nriContainer(s), l.CRI)
	step.End(err)
	return container.Limits(limits), a.updateOthers(s, others), err
}

func (a containerPlugins) Updated(ctx context.Context, s *container.Snapshot) {
	notifyNRI(ctx, a.nri, api.Event_POST_UPDATE_CONTAINER, a.pod(s), nriContainer(s))
}

func (a containerPlugins) Stopped(ctx context.Context, s *container.Snapshot) func(context.Context) {
	ctx, step := startNRI(ctx, api.Event_STOP_CONTAINER)
	others := a.nri.StopContainer(ctx, a.pod(s), nriContainer(s))
	step.End(nil)
	return a.updateOthers(s, others)
}

func (a containerPlugins) Removed(ctx context.Context, s *container.Snapshot) {
	notifyNRI(ctx, a.nri, api.Event_REMOVE_CONTAINER, a.pod(s), nriContainer(s))
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
func (a containerPlugins) pod(s *container.Snapshot) *api.PodSandbox {
	if p, err := a.managers.Pods.Get(s.PodID); err == nil {
		return nriPod(p)
	}
	return nriPod(&sandbox.Pod{ID: s.PodID, Config: s.PodConfig})
}
