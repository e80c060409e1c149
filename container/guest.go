package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// guestRecord is a pod's guest: the kernel under which a runtime such as gVisor
// runs all containers of the pod. It is made with the first of them, as only
// then is there a network to take over, and goes with the pod.
type guestRecord struct {
	Version    int         `json:"version"`
	Boot       string      `json:"boot"`
	PodID      string      `json:"podID"` // also the guest's id in the runtime
	Runtime    oci.Runtime `json:"runtime"`
	CgroupPath string      `json:"cgroupPath"`
	// Process is that of the guest, zero while it is being made.
	Process proc.Ref `json:"process"`

	unread bool // the record could not be read, and the process is not known
}

const (
	guestFile    = "guest.json"
	guestTimeout = 2 * time.Minute // for making or removing one
	pauseInGuest = "/pause"
)

func (m *Manager) guestDir(podID string) string {
	return filepath.Join(m.cfg.RunDir, "guests", podID)
}

// lockGuest takes the operation lock of a guest. Its key is the pod's id, which is
// no container's.
func (m *Manager) lockGuest(ctx context.Context, podID string) (func(), error) {
	return m.ops.Lock(ctx, podID)
}

// ensureGuest makes the pod's guest if it has none yet. It is taken before the
// operation lock of any container would be: see Manager.
func (m *Manager) ensureGuest(ctx context.Context, pod Pod, r *oci.Runtime) error {
	if !r.Guest {
		return nil
	}
	if pod.UserNS != "" {
		return fmt.Errorf("runtime handler %q has no user namespaces of pods: %w", r.Name, errdefs.ErrNotImplemented)
	}
	unlock, err := m.lockGuest(ctx, pod.ID)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := m.readGuest(pod.ID)
	switch {
	case err == nil && g.Process.Alive():
		return nil
	case err == nil && g.Process != (proc.Ref{}):
		// It had the pod's addresses, which went with it.
		return fmt.Errorf("the guest of pod %q has ended, the pod has to be made anew: %w", short(pod.ID), errdefs.ErrFailedPrecondition)
	case err == nil:
		err = m.removeGuest(ctx, g) // half made
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err == nil {
		err = m.makeGuest(ctx, pod, r)
	}
	if err != nil {
		return fmt.Errorf("guest of pod %q: %w", short(pod.ID), err)
	}
	return nil
}

func (m *Manager) readGuest(podID string) (*guestRecord, error) {
	var g guestRecord
	if err := readJSON(filepath.Join(m.guestDir(podID), guestFile), &g); err != nil {
		return nil, err
	}
	if g.Version != recordVersion || g.PodID != podID {
		return nil, fmt.Errorf("%s: version %d, pod %q: not understood", guestFile, g.Version, g.PodID)
	}
	return &g, nil
}

// salvageGuest makes a record of a guest whose own cannot be read, for its removal.
func (m *Manager) salvageGuest(podID string) *guestRecord {
	g := &guestRecord{Version: recordVersion, Boot: m.boot, PodID: podID, Runtime: m.runtimeThatKnows(podID), unread: true}
	var spec specs.Spec
	if err := readJSON(filepath.Join(m.guestDir(podID), configFile), &spec); err == nil && spec.Linux != nil {
		if path, err := g.Runtime.ResolveCgroup(spec.Linux.CgroupsPath); err == nil {
			g.CgroupPath, _ = cgroupOf(podID, path)
		}
	}
	return g
}

func (g *guestRecord) write(dir string) error { return writeJSON(filepath.Join(dir, guestFile), g) }

// makeGuest is called with the lock held. It is bounded, and the caller cannot
// cancel it: another container of the pod may be waiting for it too.
func (m *Manager) makeGuest(ctx context.Context, pod Pod, r *oci.Runtime) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), guestTimeout)
	defer cancel()
	dir := m.guestDir(pod.ID)
	g := &guestRecord{Version: recordVersion, Boot: m.boot, PodID: pod.ID, Runtime: *r}
	_, g.CgroupPath = r.CgroupsPath(pod.CgroupParent, pod.ID)
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o700); err != nil {
		return err
	}
	if err := g.write(dir); err != nil {
		return err
	}
	err := m.guestBundle(g, pod, dir)
	if err == nil {
		g.Process, err = r.StartGuest(ctx, pod.ID, dir)
	}
	if err == nil {
		err = g.write(dir)
	}
	if err != nil {
		return errors.Join(err, m.removeGuest(ctx, g))
	}
	logrus.WithContext(ctx).WithFields(logrus.Fields{"pod": pod.ID, "runtime": r.Name, "pid": g.Process.PID}).Info("guest started")
	m.watchGuest(g)
	return nil
}

// guestBundle is that of a container with nothing but the pause in it, which
// keeps the guest. It has the pod's network, and no limits of its own, as those
// of the pod's cgroup hold.
func (m *Manager) guestBundle(g *guestRecord, pod Pod, dir string) error {
	cgroups, _ := g.Runtime.CgroupsPath(pod.CgroupParent, pod.ID)
	res, err := m.cfg.Builder.Build(oci.Input{
		Args: []string{pauseInGuest}, Env: []string{"PATH=/"}, Cwd: "/", RootFS: filepath.Join(dir, "rootfs"), CgroupsPath: cgroups,
		Namespaces:  oci.Namespaces{Net: pod.NetNS, NewPID: true},
		Mounts:      []oci.Mount{{Source: m.cfg.PausePath, Destination: pauseInGuest, ReadOnly: true}},
		Annotations: oci.GuestAnnotations(),
	})
	if err != nil {
		return err
	}
	res.Spec.Hostname = hostname(pod)
	res.Spec.Linux.Namespaces = append(res.Spec.Linux.Namespaces,
		specs.LinuxNamespace{Type: specs.UTSNamespace}, specs.LinuxNamespace{Type: specs.IPCNamespace})
	b, err := oci.Encode(res.Spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, configFile), b, 0o600)
}

// annotateGuest adds to a container's config which guest it is in.
func annotateGuest(r *oci.Runtime, pod Pod, config *specs.Spec) {
	if !r.Guest {
		return
	}
	if config.Annotations == nil {
		config.Annotations = make(map[string]string)
	}
	maps.Copy(config.Annotations, oci.InGuestAnnotations(pod.ID))
}

// watchGuest makes the pod not ready when its guest ends by itself.
func (m *Manager) watchGuest(g *guestRecord) {
	lost := func() { m.cfg.Pods.Lose(g.PodID, "its guest has ended") }
	err := m.cfg.Watcher.Watch(g.Process, func(pidfd *os.File) {
		// Who adopted it buries it; the runtime, when asked to delete it, waits for that.
		_ = unix.Waitid(unix.P_PIDFD, int(pidfd.Fd()), nil, unix.WEXITED|unix.WNOHANG, nil)
		lost()
	})
	if errors.Is(err, proc.ErrGone) {
		lost()
	} else if err != nil {
		logrus.WithError(err).WithField("pod", g.PodID).Error("the guest of the pod cannot be watched")
	}
}

// dropGuest removes the pod's guest, if it has one.
func (m *Manager) dropGuest(ctx context.Context, podID string) error {
	if _, err := os.Lstat(m.guestDir(podID)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := m.lockGuest(ctx, podID)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := m.readGuest(podID)
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(m.guestDir(podID)) // before its record was written, or after it was removed
	}
	if err != nil {
		logrus.WithContext(ctx).WithField("pod", podID).WithError(err).Warn("the record of the guest cannot be read")
		g = m.salvageGuest(podID)
	}
	if err := m.removeGuest(ctx, g); err != nil {
		return fmt.Errorf("guest of pod %q: %w", short(podID), err)
	}
	return nil
}

func (m *Manager) removeGuest(ctx context.Context, g *guestRecord) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), guestTimeout)
	defer cancel()
	if g.Boot == m.boot {
		if err := g.Runtime.Delete(ctx, g.PodID, true); err != nil && (g.Process.Alive() || g.unread && g.Runtime.Knows(g.PodID)) {
			return err
		}
	}
	// What the runtime has not removed, as it did not know of it.
	if g.CgroupPath != "" {
		if err := m.cfg.Cgroups.Remove(g.CgroupPath); err != nil {
			return err
		}
	}
	return os.RemoveAll(m.guestDir(g.PodID))
}

// restoreGuests watches the guests that run, and removes those that are of no
// pod, or were never finished.
func (m *Manager) restoreGuests(ctx context.Context) error {
	dir := filepath.Join(m.cfg.RunDir, "guests")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := m.restoreGuest(ctx, e.Name()); err != nil {
			logrus.WithContext(ctx).WithField("pod", e.Name()).WithError(err).Error("guest is not restored")
		}
	}
	return nil
}

func (m *Manager) restoreGuest(ctx context.Context, podID string) error {
	if !ids.Valid(podID) {
		return errors.New("the directory's name is not an id")
	}
	g, err := m.readGuest(podID)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, podErr := m.cfg.Pods.Pod(podID)
	if g == nil || g.Boot != m.boot || g.Process == (proc.Ref{}) || errors.Is(podErr, errdefs.ErrNotFound) {
		return m.dropGuest(ctx, podID)
	}
	m.watchGuest(g)
	return podErr
}
