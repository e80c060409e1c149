package container

import (
	"context"
	"time"

	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/oci"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Cgroups is what containers need of the host's cgroups; paths are absolute in
// the hierarchy. *cgroup.Tree has these.
type Cgroups interface {
	Kill(ctx context.Context, path string) error
	Stats(path string) (cgroup.Stats, error)
}

// Config is what a Manager works with.
type Config struct {
	// RunDir is on tmpfs. Below it are containers/<id> and exits/<id>.
	RunDir   string
	Pods     Pods
	Images   Images
	Monitors Monitors
	Cgroups  Cgroups
	// Runtimes are the OCI runtimes by handler name; DefaultRuntime names the
	// one that the empty handler stands for.
	Runtimes       map[string]*oci.Runtime
	DefaultRuntime string
	// Builder makes the OCI configurations.
	Builder *oci.Builder
}

// Manager owns all containers.
type Manager struct {
	cfg Config
}

// New returns a Manager that knows no container yet: call Restore, then Run.
func New(cfg Config) (*Manager, error) { return &Manager{cfg: cfg}, nil }

// Restore rebuilds the view of what an earlier daemon left: containers that
// run on, that ended meanwhile, that were half made. It is called once, when
// the pods are restored and before Run.
func (m *Manager) Restore(ctx context.Context) error { return nil }

// Run watches for the ends of containers until ctx ends.
func (m *Manager) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Create makes a container in a pod and returns its id. The same request asked
// again while it is under way, or after it succeeded, gets the same id.
func (m *Manager) Create(ctx context.Context, podID string, config *cri.ContainerConfig, podConfig *cri.PodSandboxConfig) (string, error) {
	return "", nil
}

// Start runs the process of a created container.
func (m *Manager) Start(ctx context.Context, id string) error { return nil }

// Stop ends a container: its stop signal, timeout, SIGKILL. It returns when the
// end is recorded. Stopping what has ended, or is unknown, is no error.
func (m *Manager) Stop(ctx context.Context, id string, timeout time.Duration) error { return nil }

// Remove removes a container with all it has; one that runs is killed first.
// Removing what is unknown is no error.
func (m *Manager) Remove(ctx context.Context, id string) error { return nil }

// Get returns the container of a full id or a unique prefix.
func (m *Manager) Get(id string) (*Snapshot, error) { return nil, nil }

// List returns all containers, in no order.
func (m *Manager) List() []*Snapshot { return nil }

// StopPod ends every container of a pod and returns when all have ended.
func (m *Manager) StopPod(ctx context.Context, podID string, grace time.Duration) error { return nil }

// RemovePod removes every container of a pod.
func (m *Manager) RemovePod(ctx context.Context, podID string) error { return nil }

// ExecResult is the outcome of ExecSync.
type ExecResult struct {
	Stdout, Stderr []byte
	ExitCode       int32
}

// ExecSync runs a command in a running container. A timeout of 0 is none; one
// that passes gives context.DeadlineExceeded.
func (m *Manager) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (ExecResult, error) {
	return ExecResult{}, nil
}

// UpdateResources changes the limits of a created or running container.
func (m *Manager) UpdateResources(ctx context.Context, id string, r *cri.LinuxContainerResources) error {
	return nil
}

// ReopenLog has the monitor open the log file anew after a rotation.
func (m *Manager) ReopenLog(ctx context.Context, id string) error { return nil }

// Stats returns the figures of one container.
func (m *Manager) Stats(ctx context.Context, id string) (*cri.ContainerStats, error) { return nil, nil }

// AllStats returns the figures of all created and running containers.
func (m *Manager) AllStats(ctx context.Context) ([]*cri.ContainerStats, error) { return nil, nil }

// Event tells of one step in a container's life.
type Event struct {
	Type     cri.ContainerEventType
	Snapshot *Snapshot
}

// Subscribe calls fn for each event until cancel is called. fn must not block.
func (m *Manager) Subscribe(fn func(Event)) (cancel func()) { return func() {} }
