// Package conmon is the contract between the daemon and the monitor process of
// a container, and the daemon's side of it. It knows nothing of pods or images.
//
// The daemon starts one monitor per container and hands it a [Spec] as JSON on
// file descriptor 3. The monitor makes the pipes or the terminal, calls the OCI
// runtime's create, and answers with one [Started] as JSON on file descriptor 4,
// which it then closes. From there on it needs the daemon no more: it copies
// the streams into the log, serves the control socket, and when the container
// has ended it writes an [Exit] record and leaves.
package conmon

import "github.com/criserver/criserver/internal/proc"

// Version of the contract. A daemon can meet monitors that an older daemon
// started, so fields are added and never change their meaning.
const Version = 1

// The descriptors that a monitor inherits beside /dev/null on 0, 1 and 2.
const (
	SpecFD    = 3 // read end: one Spec
	StartedFD = 4 // write end: one Started
)

// Files in a container's run directory that monitor and daemon share.
const (
	ControlSocket = "ctl"     // unix stream socket, one Request a connection
	PIDFile       = "pid"     // written by the OCI runtime
	RuntimeLog    = "oci.log" // the OCI runtime's own log, JSON lines
)

// Spec tells a monitor what to run.
type Spec struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// RunDir is the container's run directory; the monitor works in it.
	RunDir string `json:"runDir"`
	// Bundle is the OCI bundle directory.
	Bundle string `json:"bundle"`
	// ExitFile is where the exit record is renamed to; its directory is
	// watched by the daemon.
	ExitFile string `json:"exitFile"`
	// Runtime is the OCI runtime's path and global options, as in
	// ["/usr/bin/runc", "--root", "/run/runc"]. Options are added behind it.
	Runtime []string `json:"runtime"`
	// CreateArgs are further options of the runtime's create command.
	CreateArgs []string `json:"createArgs,omitempty"`

	// LogPath is the CRI log file; empty for no log.
	LogPath string `json:"logPath,omitempty"`

	Terminal  bool `json:"terminal,omitempty"`
	Stdin     bool `json:"stdin,omitempty"`
	StdinOnce bool `json:"stdinOnce,omitempty"`
}

// Started is the monitor's answer to its Spec.
type Started struct {
	// Init is the container's first process, created and not yet started.
	Init proc.Ref `json:"init"`
	// Error is set when nothing was created; it quotes the runtime.
	Error string `json:"error,omitempty"`
}

// Exit is the record of a container's end.
type Exit struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// ExitCode is 0–255; 128 plus the number for a death by signal.
	ExitCode int32 `json:"exitCode"`
	// Signal is the number of the signal that ended it, or 0.
	Signal int `json:"signal,omitempty"`
	// OOMKilled says that the kernel's OOM killer struck in the container's
	// memory cgroup while it ran.
	OOMKilled bool `json:"oomKilled,omitempty"`
	// FinishedAt is in nanoseconds since the epoch.
	FinishedAt int64 `json:"finishedAt"`
}

// Request is one question to a monitor's control socket, a JSON line; the
// answer is a Reply, a JSON line too. After an "attach" that succeeded the
// connection carries frames.
type Request struct {
	Op     string `json:"op"`               // one of the Op constants
	Width  uint16 `json:"width,omitempty"`  // resize, in columns
	Height uint16 `json:"height,omitempty"` // resize, in rows
}

// The operations of a Request.
const (
	OpReopenLog = "reopen-log"
	OpResize    = "resize"
	OpAttach    = "attach"
)

// Reply answers a Request.
type Reply struct {
	Error string `json:"error,omitempty"`
}
