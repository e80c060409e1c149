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
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
)

// guestRecord is the record of the guest of a pod: the kernel in which a runtime such as
// gVisor runs all containers of the pod. The guest is created with the first container,
// because only then the pod has a network that the guest can take over. It is removed with
// the pod.
type guestRecord struct {
	Version    int             `json:"version"`
	Boot       string          `json:"boot"`
	PodID      string          `json:"podID"` // also the id of the guest in the runtime
	Runtime    runtime.Runtime `json:"runtime"`
	CgroupPath string          `json:"cgroupPath"`
	// Process is the process of the guest, or zero until the creation is complete.
	Process proc.Ref `json:"process"`

	unreadable bool // the record could not be read, so the process is unknown
}

const (
	guestFile    = "guest.json"
	guestTimeout = 2 * time.Minute // for the creation or removal of a guest
	pauseInGuest = "/pause"
)

func (m *Manager) guestDir(podID string) string {
	return filepath.Join(m.cfg.RunDir, "guests", podID)
}

// lockGuest takes the operation lock of a guest. The key is the id of the pod, which is
// never the id of a container.
func (m *Manager) lockGuest(ctx context.Context, podID string) (func(), error) {
	return m.ops.Lock(ctx, podID)
}

// ensureGuest creates the guest of a pod that has none. The caller may hold the operation
// lock of a container: see the lock order of Manager.
func (m *Manager) ensureGuest(ctx context.Context, builder *oci.Builder, pod Pod, r *runtime.Runtime) error {
	if !r.Guest {
		return nil
	}
	if pod.UserNS != "" {
		return fmt.Errorf("runtime handler %q does not support user namespaces of pods: %w", r.Name, errdefs.ErrNotImplemented)
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
		// The end of the guest has removed the addresses of the pod.
		return fmt.Errorf("the guest of pod %q has exited, the pod must be created again: %w", short(pod.ID), errdefs.ErrFailedPrecondition)
	case err == nil:
		err = m.deleteGuest(ctx, g) // its creation was interrupted
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err == nil {
		err = m.createGuest(ctx, builder, pod, r)
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
		return nil, fmt.Errorf("%s: version %d with pod %q is not supported", guestFile, g.Version, g.PodID)
	}
	return &g, nil
}

// salvageGuest makes a record for the removal of a guest whose record cannot be read.
func (m *Manager) salvageGuest(podID string) *guestRecord {
	g := &guestRecord{Version: recordVersion, Boot: m.boot, PodID: podID, Runtime: m.findRuntime(podID), unreadable: true}
	var spec specs.Spec
	if err := readJSON(filepath.Join(m.guestDir(podID), configFile), &spec); err == nil && spec.Linux != nil {
		if path, err := g.Runtime.ResolveCgroup(spec.Linux.CgroupsPath); err == nil {
			g.CgroupPath, _ = containerCgroup(podID, path)
		}
	}
	return g
}

func (g *guestRecord) write(dir string) error { return writeJSON(filepath.Join(dir, guestFile), g) }

// createGuest creates the guest of a pod. The caller holds the operation lock of the
// guest. The creation has a timeout, and the caller cannot cancel it, because other
// containers of the pod may wait for it, too.
func (m *Manager) createGuest(ctx context.Context, builder *oci.Builder, pod Pod, r *runtime.Runtime) (err error) {
	ctx, step := steps.Start(ctx, steps.GuestCreate)
	defer step.EndWith(&err)
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
	err = m.writeGuestBundle(builder, g, pod, dir)
	if err == nil {
		g.Process, err = r.StartGuest(ctx, pod.ID, dir)
	}
	if err == nil {
		err = g.write(dir)
	}
	if err != nil {
		return errors.Join(err, m.deleteGuest(ctx, g))
	}
	logrus.WithContext(ctx).WithFields(logrus.Fields{"pod": pod.ID, "runtime": r.Name, "pid": g.Process.PID}).Info("guest started")
	m.watchGuest(g)
	return nil
}

// writeGuestBundle writes the bundle of a guest: a container whose only process is the
// pause process. It has the network of the pod. It has no limits, because the limits of
// the pod cgroup apply.
func (m *Manager) writeGuestBundle(builder *oci.Builder, g *guestRecord, pod Pod, dir string) error {
	cgroups, _ := g.Runtime.CgroupsPath(pod.CgroupParent, pod.ID)
	res, err := builder.Build(oci.Input{
		Args: []string{pauseInGuest}, Env: []string{"PATH=/"}, Cwd: "/", RootFS: filepath.Join(dir, "rootfs"), CgroupsPath: cgroups,
		Namespaces:  oci.Namespaces{Net: pod.NetNS, NewPID: true},
		Mounts:      []oci.Mount{{Source: m.cfg.PausePath, Destination: pauseInGuest, ReadOnly: true}},
		Annotations: runtime.GuestAnnotations(),
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

// annotateGuest adds the annotations that tell the runtime the guest of the container.
func annotateGuest(r *runtime.Runtime, pod Pod, config *specs.Spec) {
	if !r.Guest {
		return
	}
	if config.Annotations == nil {
		config.Annotations = make(map[string]string)
	}
	maps.Copy(config.Annotations, runtime.InGuestAnnotations(pod.ID))
}
