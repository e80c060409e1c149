// Package wire defines the protocol between the daemon and the monitor of a container: the
// types, the names, and the monitor's half of the encoding.
//
// It is a separate package so that the monitor, of which there is one for each container, links
// neither encoding/json nor net, whose tables would add a fifth to the monitor's memory.
// Package wire imports no package that does. The daemon encodes and decodes the same types with
// encoding/json in package conmon.
package wire

import "time"

// Version is the version of the protocol. A daemon can meet monitors that an older daemon has
// started. So fields may be added, but must never change their meaning.
const Version = 1

// Descriptors that a monitor inherits besides /dev/null on 0, 1 and 2.
const (
	SpecFD    = 3 // a file or pipe that contains one Spec
	StartedFD = 4 // the write end of a pipe for the answer
)

// Files in a container's run directory that the monitor and the daemon share.
const (
	ControlSocket = "ctl"     // unix seqpacket socket; one Request per connection
	PIDFile       = "pid"     // written by the OCI runtime
	RuntimeLog    = "oci.log" // the OCI runtime's log, as JSON lines
)

// CgroupNamespace is a variable in Spec.RuntimeEnv with which a restored container gets a cgroup namespace.
const CgroupNamespace = "CRISERVER_CGROUP_NAMESPACE=1"

// Spec describes the container for its monitor.
type Spec struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// RunDir is the absolute path of the container's run directory, which is the monitor's
	// working directory.
	RunDir string `json:"runDir"`
	// Bundle is the absolute path of the OCI bundle directory.
	Bundle string `json:"bundle"`
	// ExitFile is the absolute path of the exit record. The daemon watches its directory. The
	// monitor writes the record under a name that begins with a dot, and then renames it.
	ExitFile string `json:"exitFile"`
	// Runtime is the path of the OCI runtime and its global options, such as ["/usr/bin/runc",
	// "--root", "/run/runc"]. The monitor appends further options.
	Runtime []string `json:"runtime"`
	// CreateArgs are additional options of the runtime's create command.
	CreateArgs []string `json:"createArgs,omitempty"`
	// RuntimeEnv is the environment of the runtime's processes. If it is nil, the launcher uses
	// the daemon's environment.
	RuntimeEnv []string `json:"runtimeEnv,omitempty"`

	// StdioUID and StdioGID are the owner of the pipes that become the container's streams: the
	// host ids of the container's root user, who otherwise could not open /dev/stdout.
	StdioUID uint32 `json:"stdioUID,omitempty"`
	StdioGID uint32 `json:"stdioGID,omitempty"`

	// LogPath is the absolute path of the CRI log file, or empty for no log.
	LogPath string `json:"logPath,omitempty"`
	// LogSizeMax is the maximum size of the log file in bytes, or 0 for no limit.
	LogSizeMax int64 `json:"logSizeMax,omitempty"`

	// Guest says that the runtime runs the container under a separate kernel. Then the pid
	// that the runtime writes is the pid of that kernel. The start is deferred, because the
	// runtime's start gets the streams. The output of the runtime's wait is the exit code.
	Guest bool `json:"guest,omitempty"`

	// RestoreImages is the absolute path of the directory with the process images of a
	// checkpoint, or empty. With RestoreImages the start is deferred: the monitor does not call
	// the runtime's create, and the start calls the runtime's restore. Until then the container
	// has no process.
	RestoreImages string `json:"restoreImages,omitempty"`
	// RestoreArgs are additional options of the runtime's restore command.
	RestoreArgs []string `json:"restoreArgs,omitempty"`

	Terminal  bool `json:"terminal,omitempty"`
	Stdin     bool `json:"stdin,omitempty"`
	StdinOnce bool `json:"stdinOnce,omitempty"`
}

// StartDeferred reports whether the monitor starts the container's process when the daemon sends
// OpStart. The process of any other container is created with the container, and the daemon starts
// it through the runtime.
func (s *Spec) StartDeferred() bool { return s.Guest || s.RestoreImages != "" }

// The time after which a monitor kills the runtime's start or restore. The daemon waits longer than
// that. The time of a restore depends on the memory of the container.
const (
	StartTimeout   = 2 * time.Minute
	RestoreTimeout = 10 * time.Minute
)

// Exit is the exit record of a container.
type Exit struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// ExitCode is from 0 to 255. It is 128 plus the signal number if a signal ended the
	// process.
	ExitCode int32 `json:"exitCode"`
	// Unknown says that the exit status could not be determined. Then ExitCode is 255.
	Unknown bool `json:"unknown,omitempty"`
	// Signal is the number of the signal that ended the process, or 0.
	Signal int `json:"signal,omitempty"`
	// OOMKilled says that the kernel's OOM killer ended the container: it killed a process in
	// the container's memory cgroup shortly before the container exited, and the first process
	// was ended by SIGKILL or exited with status 137. If the status of the first process is
	// unknown, the OOM kill alone counts.
	OOMKilled bool `json:"oomKilled,omitempty"`
	// FinishedAt is the time of the exit in nanoseconds since the epoch.
	FinishedAt int64 `json:"finishedAt"`
	// LogLost is the number of bytes of the log, including prefixes, that are lost: those that
	// could not be written before the container exited, and those that were deleted because the
	// log reached LogSizeMax.
	LogLost int64 `json:"logLost,omitempty"`
}

// Request is a request on a monitor's control socket, a JSON line in one packet. The reply is a
// Reply, also a JSON line. After a successful attach, the packets of the connection are frames.
type Request struct {
	Op     string `json:"op"`               // one of the Op constants
	Width  uint16 `json:"width,omitempty"`  // columns, for resize
	Height uint16 `json:"height,omitempty"` // rows, for resize
	// The streams of an attach.
	Stdin  bool `json:"stdin,omitempty"`
	Stdout bool `json:"stdout,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
}

// The operations of a Request.
const (
	OpReopenLog = "reopen-log"
	OpResize    = "resize"
	OpAttach    = "attach"
	OpStart     = "start"   // start a container whose start is deferred; the reply is an answer as after create
	OpAbandon   = "abandon" // end a container whose start is deferred and that was never started
	OpCRIU      = "criu"    // from the process that executes CRIU for a restore: watch the process
)

// Reply answers a Request.
type Reply struct {
	Error string `json:"error,omitempty"`
}

// Limits of packets on the control socket, in bytes.
const (
	MaxRequest = 1024
	// MaxPayload is the maximum payload of a frame, without the type byte.
	MaxPayload = 32 << 10
	// MaxStarted is the maximum size of the monitor's answer. A write of up to PIPE_BUF bytes
	// to a pipe is atomic, so one read returns the complete answer.
	MaxStarted = 4096
)

// Frame is the type of a frame, which is the first byte of the packet. The kernel keeps packet
// boundaries, so a frame needs no length.
type Frame byte

// The frames of an attach, with their senders.
const (
	FrameStdin      Frame = 'i' // client: input for the container
	FrameCloseStdin Frame = 'c' // client: end of the input
	FrameResize     Frame = 'r' // client: width and height, 16 bits each, big endian
	FrameStdout     Frame = 'o' // monitor: bytes of the container
	FrameStderr     Frame = 'e' // monitor: bytes of the container
	FrameExit       Frame = 'x' // monitor: the exit code, 32 bits, big endian; the last frame
)
