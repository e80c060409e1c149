package container

import (
	"context"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/proc"
)

// Monitors is what containers need of the monitor processes.
type Monitors interface {
	// Create starts a monitor and returns when the container is created, with
	// the container's init and the monitor itself.
	Create(ctx context.Context, spec conmon.Spec) (started conmon.Started, monitor proc.Ref, err error)
	// ReopenLog has the monitor that works in runDir open its log anew.
	ReopenLog(ctx context.Context, runDir string) error
}
