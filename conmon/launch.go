package conmon

import (
	"context"
	"errors"
	"os"
	"os/exec"

	"github.com/criserver/criserver/internal/proc"
)

// Starter starts a process where monitors belong, which is a cgroup of their
// own, never the container's.
type Starter interface {
	Start(cmd *exec.Cmd) error
}

// Watcher tells of the end of a process, as [proc.Watcher] does.
type Watcher interface {
	Watch(r proc.Ref, ended func(pidfd *os.File)) error
}

// Launcher starts monitors.
type Launcher struct {
	// Path is the monitor's binary.
	Path string
	// Starter starts it.
	Starter Starter
	// Watcher lets the launcher reap each monitor when it has ended; no
	// goroutine and no thread waits for it until then.
	Watcher Watcher
}

// Create starts a monitor for spec and waits until the OCI runtime's create is
// done. It returns what the monitor made and the monitor itself.
//
// When ctx ends first the monitor is told to give up: it ends the runtime,
// deletes the half-made container and leaves, and only then does Create return,
// with the error of ctx. When Create fails nothing is left but files in the run
// directory.
func (l *Launcher) Create(ctx context.Context, spec Spec) (Started, proc.Ref, error) {
	return Started{}, proc.Ref{}, errors.ErrUnsupported
}
