// Package wire is what the daemon and the monitor of a container say to each
// other: the types, the names, and the monitor's half of the encoding.
//
// It is a package of its own so that the monitor, of which there is one for
// each container, links neither encoding/json nor net: their tables alone would
// add a fifth to its memory. It imports nothing that does. The daemon encodes
// and decodes the same types with encoding/json in package conmon.
package wire

// Version of the contract. A daemon can meet monitors that an older daemon
// started, so fields are added and never change their meaning.
const Version = 1

// The descriptors that a monitor inherits beside /dev/null on 0, 1 and 2.
const (
	SpecFD    = 3 // a file or pipe that holds one Spec
	StartedFD = 4 // write end of a pipe: one answer
)

// Files in a container's run directory that monitor and daemon share.
const (
	ControlSocket = "ctl"     // unix seqpacket socket, one Request a connection
	PIDFile       = "pid"     // written by the OCI runtime
	RuntimeLog    = "oci.log" // the OCI runtime's own log, JSON lines
)

// Spec tells a monitor what to run.
type Spec struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// RunDir is the container's run directory, absolute; the monitor works in it.
	RunDir string `json:"runDir"`
	// Bundle is the OCI bundle directory, absolute.
	Bundle string `json:"bundle"`
	// ExitFile is where the exit record is renamed to; its directory is
	// watched by the daemon. The record is written beside it under a name that
	// begins with a dot.
	ExitFile string `json:"exitFile"`
	// Runtime is the OCI runtime's path and global options, as in
	// ["/usr/bin/runc", "--root", "/run/runc"]. Options are added behind it.
	Runtime []string `json:"runtime"`
	// CreateArgs are further options of the runtime's create command.
	CreateArgs []string `json:"createArgs,omitempty"`
	// RuntimeEnv is the environment of the runtime's processes. The launcher
	// fills in the daemon's when it is nil.
	RuntimeEnv []string `json:"runtimeEnv,omitempty"`

	// StdioUID and StdioGID own the pipes that become the container's streams: the
	// host's ids of its root, who could else not open /dev/stdout.
	StdioUID uint32 `json:"stdioUID,omitempty"`
	StdioGID uint32 `json:"stdioGID,omitempty"`

	// LogPath is the CRI log file, absolute; empty for no log.
	LogPath string `json:"logPath,omitempty"`

	// Guest says that the runtime runs the container under a kernel of its own:
	// the pid that it writes is that one's, the streams are handed over when the
	// container is started, which the monitor does, and how it ended the runtime
	// has to be asked.
	Guest bool `json:"guest,omitempty"`

	Terminal  bool `json:"terminal,omitempty"`
	Stdin     bool `json:"stdin,omitempty"`
	StdinOnce bool `json:"stdinOnce,omitempty"`
}

// Exit is the record of a container's end.
type Exit struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// ExitCode is 0–255; 128 plus the number for a death by signal.
	ExitCode int32 `json:"exitCode"`
	// Unknown says that the kernel did not tell how the process ended, so that
	// ExitCode, then 255, means nothing.
	Unknown bool `json:"unknown,omitempty"`
	// Signal is the number of the signal that ended it, or 0.
	Signal int `json:"signal,omitempty"`
	// OOMKilled says that the kernel's OOM killer ended the container: it killed a
	// process in the container's memory cgroup shortly before the end, and the first
	// process was ended by SIGKILL or exited with the status 137. For a first process
	// with an unknown status, the kill alone counts.
	OOMKilled bool `json:"oomKilled,omitempty"`
	// FinishedAt is in nanoseconds since the epoch.
	FinishedAt int64 `json:"finishedAt"`
	// LogLost counts the bytes that could not be written to the log before the end
	// of the container, their prefixes included.
	LogLost int64 `json:"logLost,omitempty"`
}

// Request is one question to a monitor's control socket, a JSON line in one
// packet; the answer is a Reply, a JSON line too. After an attach that
// succeeded the packets of the connection are frames.
type Request struct {
	Op     string `json:"op"`               // one of the Op constants
	Width  uint16 `json:"width,omitempty"`  // resize, in columns
	Height uint16 `json:"height,omitempty"` // resize, in rows
	// The streams that an attach takes part in.
	Stdin  bool `json:"stdin,omitempty"`
	Stdout bool `json:"stdout,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
}

// The operations of a Request.
const (
	OpReopenLog = "reopen-log"
	OpResize    = "resize"
	OpAttach    = "attach"
	OpStart     = "start"   // run the process, in a guest
	OpAbandon   = "abandon" // end it before it was started, in a guest
)

// Reply answers a Request.
type Reply struct {
	Error string `json:"error,omitempty"`
}

// Bounds of what goes over the control socket, in bytes.
const (
	MaxRequest = 1024
	// MaxPayload is what one frame carries at most, behind its type byte.
	MaxPayload = 32 << 10
	// MaxStarted bounds the monitor's answer: a write of so much to a pipe is
	// atomic (PIPE_BUF), so one read sees all of it or nothing.
	MaxStarted = 4096
)

// Frame is the type of a frame, the first byte of a packet. The kernel keeps
// the packets' bounds, so a frame needs no length.
type Frame byte

// The frames of an attach, and who sends them.
const (
	FrameStdin      Frame = 'i' // client: bytes for the container
	FrameCloseStdin Frame = 'c' // client: it has no more of them
	FrameResize     Frame = 'r' // client: width and height, 16 bit big endian each
	FrameStdout     Frame = 'o' // monitor: bytes of the container
	FrameStderr     Frame = 'e' // monitor: bytes of the container
	FrameExit       Frame = 'x' // monitor: the exit code, 32 bit big endian; the last frame
)
