package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/ids"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// undoTimeout bounds a rollback, which the request cannot cancel.
const undoTimeout = 2 * time.Minute

// Create makes a container in a pod and returns its id. A request for the same name
// and attempt that comes while it is under way waits for that one; one that comes
// after it has succeeded gets the same id, unless an earlier caller has the id and
// the configs differ. The kubelet's retries differ in the host path of the
// termination log. The pod config of the request is not used: what the pod was made
// from holds.
func (m *Manager) Create(ctx context.Context, podID string, config *cri.ContainerConfig, _ *cri.PodSandboxConfig) (string, error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("create container %q in pod %q: %w", config.GetMetadata().GetName(), short(podID), err)
	}
	if err := validate(config); err != nil {
		return fail(err)
	}
	if err := m.cfg.Builder.CheckNew(config.GetLinux().GetResources()); err != nil {
		return fail(err)
	}
	pod, err := m.cfg.Pods.Pod(podID)
	if err != nil {
		return fail(err)
	}
	n := name{pod.ID, config.GetMetadata().GetName(), config.GetMetadata().GetAttempt()}
	key := fmt.Sprintf("%s/%d/%s", n.pod, n.attempt, n.name)
	id, err := m.creates.Do(ctx, key, func(ctx context.Context) (string, error) { return m.create(ctx, n, config) })
	if err != nil && ctx.Err() != nil {
		return fail(m.inStage(n, err))
	}
	if err != nil {
		return fail(err)
	}
	if c, err := m.find(id); err == nil {
		c.joined(config)
		if ctx.Err() == nil { // else the caller does not hear of it
			c.claimed.Store(true)
		}
	}
	return id, nil
}

// create finds the container that an earlier try made, or makes it.
func (m *Manager) create(ctx context.Context, n name, config *cri.ContainerConfig) (string, error) {
	if c := m.named(n); c != nil {
		if id, err := m.earlier(ctx, c, config); id != "" || err != nil {
			return id, err
		}
	}
	c, plan, err := m.plan(n.pod, config)
	if err != nil {
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
	if err := m.make(ctx, c, plan); err != nil {
		m.events.forget(c.id)
		return "", m.undo(ctx, c, plan, err)
	}
	logrus.WithContext(ctx).WithFields(c.log().Data).WithField("name", n.name).Info("container created")
	m.events.send(cri.ContainerEventType_CONTAINER_CREATED_EVENT, c.snap.Load())
	m.tellCreated(ctx, c)
	return c.id, nil
}

// plan is what a creation knows before it touches anything.
type plan struct {
	pod   Pod
	image Image
	// begun: the first side effect may have happened; monitored: the runtime may
	// know the container.
	begun, monitored bool
	classes          classes
	labels           labels
	volumes          map[int]string // where images are mounted, by the index of the mount
}

func (m *Manager) plan(podID string, config *cri.ContainerConfig) (*container, *plan, error) {
	pod, err := m.cfg.Pods.Pod(podID)
	if err != nil {
		return nil, nil, err
	}
	if err := validateInPod(config, pod); err != nil {
		return nil, nil, err
	}
	runtime, err := m.runtime(pod.RuntimeHandler)
	if err != nil {
		return nil, nil, err
	}
	if err := m.checkMountOptions(runtime.Name, config); err != nil {
		return nil, nil, err
	}
	image, err := m.cfg.Images.Image(config.GetImage().GetImage())
	if err != nil {
		return nil, nil, fmt.Errorf("config.image: %w", err)
	}
	volumes, err := m.volumeImages(config)
	if err != nil {
		return nil, nil, err
	}
	labels, err := m.labelsFor(config, pod)
	if err != nil {
		return nil, nil, err
	}
	signal, err := signalOf(config.GetStopSignal(), image.Config.StopSignal)
	if err != nil {
		return nil, nil, err
	}
	classes, err := m.classesOf(config, pod.Config)
	if err != nil {
		return nil, nil, err
	}
	id := ids.New()
	rec := &record{
		Version: recordVersion, Boot: m.boot, ID: id, PodID: pod.ID, Runtime: *runtime, ImageID: image.ID,
		ImageRef: imageRef(config, image), LogPath: logFile(config, pod), StopSignal: signal,
		SharedPID: config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid() != cri.NamespaceMode_CONTAINER,
		Volumes:   volumes,
	}
	_, rec.CgroupPath = runtime.CgroupsPath(pod.CgroupParent, id)
	if err := rec.setMessages(config, pod.Config); err != nil {
		return nil, nil, err
	}
	return newContainer(m.dir(id), rec, config, pod.Config), &plan{pod: pod, image: image, labels: labels, classes: classes}, nil
}

// imageRef is the image as the user wrote it, where the request tells.
func imageRef(config *cri.ContainerConfig, image Image) string {
	if ref := config.GetImage().GetUserSpecifiedImage(); ref != "" {
		return ref
	}
	if ref := config.GetImage().GetImage(); ref != "" && ref != image.ID {
		return ref
	}
	return image.Ref
}

// make does the work, from the record of the intent to the state "created".
func (m *Manager) make(ctx context.Context, c *container, p *plan) error {
	c.enter("write record")
	// Only now, with the container known to StopPod, does "ready" hold good.
	pod, err := m.cfg.Pods.Pod(p.pod.ID)
	if err != nil {
		return err
	}
	if err := validateInPod(c.config, pod); err != nil {
		return err
	}
	p.begun = true
	if err := makeDirFor(c.dir, rootOf(pod.Config)); err != nil {
		return err
	}
	if err := c.rec.write(c.dir); err != nil {
		return err
	}
	c.rec.Config, c.rec.PodConfig = nil, nil // decoded they are kept anyway
	c.enter("mount root file system")
	if err := os.Mkdir(c.rootfs(), 0o700); err != nil {
		return err
	}
	if err := m.mountRootFS(ctx, c, p); err != nil {
		return fmt.Errorf("mount root file system: %w", err)
	}
	if p.volumes, err = m.mountVolumes(ctx, c, p); err != nil {
		return err
	}
	c.enter("write bundle")
	b, err := m.bundle(ctx, c, p)
	if err != nil {
		return err
	}
	defer b.close()
	c.enter("guest")
	if err := m.ensureGuest(ctx, p.pod, c.runtime); err != nil {
		return err
	}
	c.enter("runtime create")
	return m.launch(ctx, c, p)
}

// launch has a monitor create the container.
func (m *Manager) launch(ctx context.Context, c *container, p *plan) error {
	p.monitored = true
	root := rootOf(p.pod.Config)
	started, monitor, err := m.cfg.Monitors.Create(ctx, conmon.Spec{
		Version: conmon.Version, ID: c.id, RunDir: c.dir, Bundle: c.dir, ExitFile: m.exitFile(c.id),
		Runtime: c.runtime.Args(), LogPath: c.rec.LogPath, StdioUID: root.uid, StdioGID: root.gid,
		Guest: c.runtime.Guest, Terminal: c.config.GetTty(), Stdin: c.config.GetStdin(), StdinOnce: c.config.GetStdinOnce(),
	})
	if err != nil {
		return err
	}
	if err := c.change(func(f *facts) {
		f.Created, f.Init, f.Monitor = time.Now().UnixNano(), started.Init, monitor
		f.ProcessCgroup = m.processCgroup(c, started.Init.PID)
	}); err != nil {
		return err
	}
	if !c.runtime.Guest {
		c.resetOOMScoreAdj(started.Init.PID)
	}
	if err := m.setHugepages(c, m.cfg.Builder.HugepagesAfterCreate(c.snap.Load().Resources)); err != nil {
		return err
	}
	m.watch(c)
	return nil
}

// processCgroup returns the cgroup of the first process if it is below the
// container's cgroup, or "". crun puts a container into a child of its systemd
// scope, and crun 1.8 sets most limits only there. The process runs
// nothing of the container yet, so it cannot have moved to another cgroup.
func (m *Manager) processCgroup(c *container, pid int) string {
	if !c.runtime.SystemdCgroup || c.runtime.Guest {
		return ""
	}
	path, err := m.cfg.Cgroups.Of(pid)
	if err != nil || !strings.HasPrefix(path, c.rec.CgroupPath+"/") {
		return ""
	}
	return path
}

// undo takes back a creation that failed. What cannot be taken back stays
// visible as a container that never ran, which can be removed again.
func (m *Manager) undo(ctx context.Context, c *container, p *plan, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if !p.begun {
		m.unregister(c)
		return cause
	}
	c.enter("undo")
	gone := c.preview()
	err := m.teardown(ctx, c, p.monitored)
	if err == nil {
		m.unregister(c)
		m.tellUndone(ctx, c, gone)
		return cause
	}
	c.log().WithError(err).Error("the failed creation could not be undone; the container is kept for another removal")
	c.fail(cause.Error())
	return errors.Join(cause, fmt.Errorf("undo: %w", err))
}

// fail ends a container that was never run.
func (c *container) fail(why string) {
	c.mu.Lock()
	c.startFailure = why
	c.mu.Unlock()
	c.finish(end{Finished: time.Now().UnixNano()})
	c.told() // plugins will hear of its removal
}
