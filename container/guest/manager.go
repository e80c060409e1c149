package guest

import (
	"os"
	"path/filepath"

	"github.com/criserver/criserver/internal/oplock"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci/runtime"
)

// Watcher watches processes. *proc.Watcher implements Watcher.
type Watcher interface {
	// Watch calls exited when the process has exited.
	Watch(r proc.Ref, exited func(pidfd *os.File)) error
}

// Cgroups controls the cgroups of guests. *cgroup.Tree implements Cgroups.
type Cgroups interface {
	Remove(path string) error
}

// Config is the input of New.
type Config struct {
	// Dir has a directory for each guest. Its name is the id of the pod.
	Dir string
	// Boot is the id of the current boot.
	Boot string
	// PausePath is the static binary of the pause process, which is the only process of the guest itself.
	PausePath string
	Watcher   Watcher
	Cgroups   Cgroups
	// FindPod returns ErrNotFound if there is no pod with this id.
	FindPod func(podID string) error
	// MarkNotReady makes a ready pod not ready. reason is a sentence for the log.
	MarkNotReady func(podID, reason string)
	// FindRuntime returns the runtime that has a container of this id, or else the default runtime.
	FindRuntime func(id string) runtime.Runtime
}

// Manager manages the guests of all pods.
type Manager struct {
	cfg Config
	ops oplock.Locks // the operation locks of the guests, by the id of the pod
}

// New returns a Manager. The caller calls Recover.
func New(cfg Config) *Manager { return &Manager{cfg: cfg} }

// dir returns the directory of the guest of a pod.
func (m *Manager) dir(podID string) string { return filepath.Join(m.cfg.Dir, podID) }

// short shortens an id for messages.
func short(id string) string { return id[:min(len(id), 12)] }
