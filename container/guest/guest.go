// Package guest manages the guests of pods. The guest of a pod is the kernel in which a runtime such as gVisor runs all
// containers of the pod. Package guest owns the records and bundles of guests, and their processes. It does not know
// the containers in a guest.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
)

// Pod has the properties of a pod sandbox that its guest uses.
type Pod struct {
	ID           string
	Hostname     string
	CgroupParent string
	// NetNS is the path of the network namespace, or "" for the namespace of the host.
	NetNS string
	// UserNS is not "" if the pod has a user namespace, which guests do not support.
	UserNS string
}

// Record is the record of the guest of a pod. The guest is created with the first container,
// because only then the pod has a network that the guest can take over. It is removed with
// the pod.
type Record struct {
	Version    int             `json:"version"`
	Boot       string          `json:"boot"`
	PodID      string          `json:"podID"` // also the id of the guest in the runtime
	Runtime    runtime.Runtime `json:"runtime"`
	CgroupPath string          `json:"cgroupPath"`
	// Process is the process of the guest, or zero until the creation is complete.
	Process proc.Ref `json:"process"`

	unreadable bool // the record could not be read, so the process is unknown
}

// File is the name of the record in the directory of a guest.
const File = "guest.json"

// timeout limits the creation or removal of a guest.
const timeout = 2 * time.Minute

// Ensure creates the guest of a pod that has none, if the runtime runs containers in guests. The caller may hold the
// operation lock of a container, but not the lock of a guest.
//
// Errors: ErrNotImplemented for a pod with a user namespace; ErrFailedPrecondition if the guest of the pod has exited.
func (m *Manager) Ensure(ctx context.Context, builder *oci.Builder, pod Pod, r *runtime.Runtime) error {
	if !r.Guest {
		return nil
	}
	if pod.UserNS != "" {
		return fmt.Errorf("runtime handler %q does not support user namespaces of pods: %w", r.Name, errdefs.ErrNotImplemented)
	}
	unlock, err := m.ops.Lock(ctx, pod.ID)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := m.read(pod.ID)
	switch {
	case err == nil && g.Process.Alive():
		return nil
	case err == nil && g.Process != (proc.Ref{}):
		// The end of the guest has removed the addresses of the pod.
		return fmt.Errorf("the guest of pod %q has exited, the pod must be created again: %w", short(pod.ID), errdefs.ErrFailedPrecondition)
	case err == nil:
		err = m.delete(ctx, g) // its creation was interrupted
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err == nil {
		err = m.create(ctx, builder, pod, r)
	}
	if err != nil {
		return fmt.Errorf("guest of pod %q: %w", short(pod.ID), err)
	}
	return nil
}

// Runtime returns the runtime of the guest of a pod, or nil if the pod has no guest that was created since the last
// boot.
func (m *Manager) Runtime(podID string) *runtime.Runtime {
	g, err := m.read(podID)
	if err != nil || g.Boot != m.cfg.Boot {
		return nil // an error is reported by Ensure, which reads the record again
	}
	return &g.Runtime
}

// Process returns the process of the guest of a pod, or the zero value if it is unknown.
func (m *Manager) Process(podID string) proc.Ref {
	g, err := m.read(podID)
	if err != nil {
		return proc.Ref{}
	}
	return g.Process
}

func (m *Manager) read(podID string) (*Record, error) {
	var g Record
	if err := record.ReadJSON(filepath.Join(m.dir(podID), File), &g); err != nil {
		return nil, err
	}
	if g.Version != record.Version || g.PodID != podID {
		return nil, fmt.Errorf("%s: version %d with pod %q is not supported", File, g.Version, g.PodID)
	}
	return &g, nil
}

// salvage makes a record for the removal of a guest whose record cannot be read.
func (m *Manager) salvage(podID string) *Record {
	g := &Record{Version: record.Version, Boot: m.cfg.Boot, PodID: podID, Runtime: m.cfg.FindRuntime(podID), unreadable: true}
	var spec specs.Spec
	if err := record.ReadJSON(filepath.Join(m.dir(podID), record.ConfigFile), &spec); err == nil && spec.Linux != nil {
		if path, err := g.Runtime.ResolveCgroup(spec.Linux.CgroupsPath); err == nil {
			g.CgroupPath, _ = record.Cgroup(podID, path)
		}
	}
	return g
}

func (g *Record) write(dir string) error { return record.WriteJSON(filepath.Join(dir, File), g) }

// create creates the guest of a pod. The caller holds the operation lock of the
// guest. The creation has a timeout, and the caller cannot cancel it, because other
// containers of the pod may wait for it, too.
func (m *Manager) create(ctx context.Context, builder *oci.Builder, pod Pod, r *runtime.Runtime) (err error) {
	ctx, step := steps.Start(ctx, steps.GuestCreate)
	defer step.EndWith(&err)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	dir := m.dir(pod.ID)
	g := &Record{Version: record.Version, Boot: m.cfg.Boot, PodID: pod.ID, Runtime: *r}
	_, g.CgroupPath = r.CgroupsPath(pod.CgroupParent, pod.ID)
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o700); err != nil {
		return err
	}
	if err := g.write(dir); err != nil {
		return err
	}
	err = m.writeBundle(builder, g, pod, dir)
	if err == nil {
		g.Process, err = r.StartGuest(ctx, pod.ID, dir)
	}
	if err == nil {
		err = g.write(dir)
	}
	if err != nil {
		return errors.Join(err, m.delete(ctx, g))
	}
	logrus.WithContext(ctx).WithFields(logrus.Fields{"pod": pod.ID, "runtime": r.Name, "pid": g.Process.PID}).Info("guest started")
	m.watch(g)
	return nil
}
