// Package conmon is the daemon's side of the protocol between the daemon and the monitor
// process of a container. It does not know pods or images.
//
// The daemon starts one monitor per container and passes a [Spec] as JSON on file descriptor 3.
// The monitor makes the container's pipes or terminal, calls the OCI runtime's create, and
// answers with one [Started] as JSON on file descriptor 4. From then on the monitor does not
// need the daemon: it copies the container's output to the log and serves the control socket.
// When the container has exited, it writes an [Exit] record and exits.
//
// The start of a container in a guest, and of a container from a checkpoint, is deferred: the monitor
// keeps what the process needs, and runs the OCI runtime's start or restore when the daemon calls
// [Start]. [Abandon] ends such a container if it was never started.
//
// Until the daemon has read the answer, the monitor is responsible for the container. If the daemon
// does not read the answer, because it was killed or has given up, the monitor deletes the
// container and exits without a record. After the daemon has read the answer, the daemon is
// responsible.
package conmon

import (
	"github.com/criserver/criserver/conmon/wire"
	"github.com/criserver/criserver/internal/proc"
)

// Version is the version of the protocol.
const Version = wire.Version

// Files in a container's run directory that the monitor and the daemon share.
const (
	ControlSocket = wire.ControlSocket
	PIDFile       = wire.PIDFile
	RuntimeLog    = wire.RuntimeLog
)

type (
	// Spec describes the container for its monitor.
	Spec = wire.Spec
	// Exit is the exit record of a container.
	Exit = wire.Exit
)

// Started is the monitor's answer to its Spec.
type Started struct {
	// Init is the container's first process, which is created but not yet started. It is zero for
	// a container that is restored from a checkpoint: the process exists only after Start.
	Init proc.Ref `json:"init"`
	// Error is set if create failed. It contains the message of the OCI runtime.
	Error string `json:"error,omitempty"`
}
