package container

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CreateRestored makes a container like Create. The start of the container restores its processes from a
// checkpoint. CreateRestored returns the errors of Create, the errors of the functions of r, and
// ErrNotImplemented for a runtime or a pod that does not support restores.
func (m *Manager) CreateRestored(ctx context.Context, podID string, config *cri.ContainerConfig, r Restore) (string, error) {
	return m.createFrom(ctx, podID, config, &r)
}

// Create makes a container in a pod and returns its id. For an image that contains a checkpoint, Create returns a
// CheckpointImageError. A request for the same name and
// attempt as a running Create waits for the running one. After a Create has succeeded,
// the same request gets the same id; a request with another config gets it only if no
// earlier caller has received the id. The retries of the kubelet differ in the host path
// of the termination log. The pod config of the request is not used: the config that
// the pod was made from is in force.
func (m *Manager) Create(ctx context.Context, podID string, config *cri.ContainerConfig, _ *cri.PodSandboxConfig) (string, error) {
	return m.createFrom(ctx, podID, config, nil)
}

func (m *Manager) createFrom(ctx context.Context, podID string, config *cri.ContainerConfig, r *Restore) (string, error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("create container %q in pod %q: %w", config.GetMetadata().GetName(), short(podID), err)
	}
	p, err := m.parse(podID, config)
	if err == nil && r != nil {
		p.restore, err = r, p.checkRestorable()
	}
	if err != nil {
		return fail(err)
	}
	n := name{p.pod.ID, p.spec.Name, p.spec.Attempt}
	key := fmt.Sprintf("%s/%d/%s", n.pod, n.attempt, n.name)
	id, err := m.creates.Do(ctx, key, func(ctx context.Context) (string, error) { return m.create(ctx, n, p) })
	if err != nil && ctx.Err() != nil {
		return fail(m.withStage(n, err))
	}
	if err != nil {
		return fail(err)
	}
	if c, err := m.find(id); err == nil {
		c.logDifference(config)
		if ctx.Err() == nil { // otherwise the caller does not receive the id
			c.idReturned.Store(true)
		}
	}
	return id, nil
}

// plan is the input and the progress of a creation.
type plan struct {
	settings    *Settings // in force when the request arrived
	config      *cri.ContainerConfig
	spec        *containerspec.Spec
	pod         Pod
	runtime     *runtime.Runtime
	handler     bundle.Handler
	restore     *Restore // nil for a container that is not restored from a checkpoint
	restoreArgs []string // options of the runtime's restore, set by writeBundle
	cgroupNS    bool     // the container gets a new cgroup namespace; set by writeBundle for a restore

	image   Image
	process *containerspec.Process
	labels  bundle.Labels
	blockIO *specs.LinuxBlockIO
	volumes map[int]string // paths of mounted images, by the index of the mount

	// sideEffects is true when the first side effect may have happened, and
	// runtimeCalled when the runtime may have a container of this id.
	sideEffects, runtimeCalled bool
}

// parse parses the request. Nothing after it can fail because of the form of the request.
func (m *Manager) parse(podID string, config *cri.ContainerConfig) (*plan, error) {
	pod, err := m.cfg.Pods.Pod(podID)
	if err != nil {
		return nil, err
	}
	settings := m.settings.Load()
	runtime, err := m.runtime(settings, pod)
	if err != nil {
		return nil, err
	}
	spec, err := containerspec.Parse(containerspec.Request{Config: config, Pod: pod.Config, Node: m.node(settings, runtime)})
	if err != nil {
		return nil, err
	}
	return &plan{
		settings: settings, config: config, spec: spec, pod: pod, runtime: runtime, handler: settings.Handlers[runtime.Name], blockIO: spec.BlockIO,
	}, nil
}

// node returns the rules of the node for containers of this runtime.
func (m *Manager) node(s *Settings, r *runtime.Runtime) *containerspec.Node {
	n := &containerspec.Node{
		Handler: r.Name, Guest: r.Guest, SELinux: m.cfg.Labels != nil, Rules: s.Builder, BlockIO: s.BlockIO, RDT: s.RDT,
	}
	if s.MountOptions != nil {
		n.MountOptions = func() []string { return s.MountOptions(r.Name) }
	}
	if s.UserNamespaces != nil {
		n.IDMappedMounts = func() error { return s.UserNamespaces(r.Name) }
	}
	return n
}

// create returns the container that an earlier attempt has made, or makes it.
func (m *Manager) create(ctx context.Context, n name, p *plan) (_ string, err error) {
	if c := m.byName(n); c != nil {
		if err := m.checkRetry(c, p); err != nil {
			return "", err
		}
		if id, err := m.reuse(ctx, c, p.config); id != "" || err != nil {
			return id, err
		}
	}
	id := ids.New()
	ctx, step := steps.Begin(ctx, steps.ContainerCreate, steps.Object{Pod: p.pod.ID, Container: id, Name: n.name})
	defer step.EndWith(&err)
	c, err := m.prepare(ctx, id, p)
	if err != nil {
		steps.Forget(ctx, id)
		return "", err
	}
	unlock, err := m.ops.Lock(ctx, c.id)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := m.register(c); err != nil {
		return "", err
	}
	m.events.expectCreate(c.id)
	if err := m.make(ctx, c, p); err != nil {
		m.events.forget(c.id)
		return "", m.undo(ctx, c, p, err)
	}
	logrus.WithContext(ctx).WithFields(c.log().Data).WithField("name", n.name).Info("container created")
	m.events.send(cri.ContainerEventType_CONTAINER_CREATED_EVENT, c.snap.Load())
	c.pluginConfig = nil
	m.notify(ctx, c.snap.Load(), Plugins.Created)
	return c.id, nil
}

// checkPodReady returns an error if the pod does not exist or is not ready.
func (m *Manager) checkPodReady(podID string) error {
	pod, err := m.cfg.Pods.Pod(podID)
	if err != nil {
		return err
	}
	if !pod.Ready {
		return fmt.Errorf("pod %q is not ready: %w", short(pod.ID), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// prepare looks up the images and the SELinux labels, and makes the record in memory. It
// has no side effects.
func (m *Manager) prepare(ctx context.Context, id string, p *plan) (*container, error) {
	if err := m.checkPodReady(p.pod.ID); err != nil {
		return nil, err
	}
	volumeImages, err := m.resolveImages(ctx, p)
	if err != nil {
		return nil, err
	}
	if p.labels, err = m.bundleHost().LabelsFor(p.spec, bundlePod(p.pod)); err != nil {
		return nil, err
	}
	if p.process, err = p.spec.Process(p.image.Config); err != nil {
		return nil, err
	}
	if p.settings.IgnoreImageVolumes {
		p.process.Volumes = nil
	}
	rec := &record.Record{
		Version: record.Version, Boot: m.boot, ID: id, PodID: p.pod.ID, Runtime: *p.runtime, ImageID: p.image.ID,
		ImageRef: imageRef(p.spec.Image, p.image), LogPath: p.spec.LogPath, StopSignal: p.process.StopSignal,
		SharedPID: p.spec.PID.Mode != cri.NamespaceMode_CONTAINER, Volumes: volumeImages,
	}
	if p.restore != nil {
		rec.Restore = &record.Restore{Images: filepath.Join(m.cfg.RestoreDir, id)}
	}
	_, rec.CgroupPath = p.runtime.CgroupsPath(p.pod.CgroupParent, id)
	if err := rec.SetMessages(p.config, p.pod.Config); err != nil {
		return nil, err
	}
	c := newContainer(m.dir(id), rec, p.config, p.pod.Config)
	for _, w := range p.process.Warnings {
		c.log().Warn(w)
	}
	return c, nil
}

// resolveImages finds the image of the container, and the images that are mounted as volumes.
func (m *Manager) resolveImages(ctx context.Context, p *plan) (volumes map[int]string, err error) {
	_, step := steps.Start(ctx, steps.ImageResolve)
	defer step.EndWith(&err)
	if p.image, err = m.cfg.Images.Image(p.spec.Image.Ref); err != nil {
		return nil, fmt.Errorf("config.image: %w", err)
	}
	if err := checkNoCheckpoint(p.image); err != nil {
		return nil, fmt.Errorf("config.image: %w", err)
	}
	return m.findVolumeImages(p.spec.Mounts)
}

// imageRef returns the image as the user wrote it, if the request has that.
func imageRef(requested containerspec.Image, image Image) string {
	switch {
	case requested.UserRef != "":
		return requested.UserRef
	case requested.Ref != image.ID:
		return requested.Ref
	}
	return image.Ref
}
