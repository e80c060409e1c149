// Package conmon is the daemon's side of the contract with the monitor process
// of a container. It knows nothing of pods or images.
//
// The daemon starts one monitor per container and hands it a [Spec] as JSON on
// file descriptor 3. The monitor makes the pipes or the terminal, calls the OCI
// runtime's create, and answers with one [Started] as JSON on file descriptor 4.
// From there on it needs the daemon no more: it copies the streams into the log,
// serves the control socket, and when the container has ended it writes an
// [Exit] record and leaves.
//
// Until the daemon has read the answer, the container is the monitor's to undo:
// a monitor whose answer nobody reads (the daemon died, or gave up) deletes the
// container and leaves without a record. What was read is the daemon's.
package conmon

import (
	"github.com/criserver/criserver/conmon/wire"
	"github.com/criserver/criserver/internal/proc"
)

// Version of the contract.
const Version = wire.Version

// Files in a container's run directory that monitor and daemon share.
const (
	ControlSocket = wire.ControlSocket
	PIDFile       = wire.PIDFile
	RuntimeLog    = wire.RuntimeLog
)

type (
	// Spec tells a monitor what to run.
	Spec = wire.Spec
	// Exit is the record of a container's end.
	Exit = wire.Exit
)

// Started is the monitor's answer to its Spec.
type Started struct {
	// Init is the container's first process, created and not yet started.
	Init proc.Ref `json:"init"`
	// Error is set when nothing was created; it quotes the runtime.
	Error string `json:"error,omitempty"`
}
