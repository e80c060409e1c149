package monitor

import (
	"errors"
	"os/signal"
	"path"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/criu"
	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

const usage = `usage: conmon monitor ID   monitor a container; only the daemon runs this, with descriptors 3 and 4
       conmon restore PID RUNTIME ARGUMENT...
                           run RUNTIME in a mount namespace until the monitor PID exits; only a monitor runs this
       conmon pause        hold a pod's namespaces; also if the program is named pause
       conmon probe [PATH | PATH!DEVICE | PATH=ro]...
                           exit with 0 if each PATH belongs to root, and no PATH!DEVICE is on the device
       conmon --version
`

// Main runs the command in args, whose first element is the program's name, and returns the
// exit status.
func Main(args []string, version string) int {
	mode := ""
	if len(args) > 1 {
		mode = args[1]
	}
	if len(args) > 0 && path.Base(args[0]) == "pause" {
		mode = "pause"
	}
	if len(args) > 0 && path.Base(args[0]) == criu.Name {
		return criu.Exec(args)
	}
	switch mode {
	case "monitor": // further arguments are only for the process list
		return runMonitor()
	case criu.RestoreMode: // the monitor runs its own program
		return criu.ExecRestore(args[2:])
	case "pause":
		pause()
	case "probe": // shows that a container can run this binary
		return probe(args[2:])
	case "--version":
		_, _ = unix.Write(1, []byte("conmon version "+version+"\n"))
		return 0
	}
	_, _ = unix.Write(2, []byte(usage))
	return 2
}

// probe checks conditions from inside a container and returns 0 if all hold. The condition
// "PATH" holds if the path belongs to root. The condition "PATH!DEVICE" holds if the path
// exists and is not on the device with that number. The condition "PATH=ro" holds if the path
// is on a read-only mount.
func probe(conditions []string) int {
	for _, condition := range conditions {
		if !holds(condition) {
			_, _ = unix.Write(2, []byte("condition does not hold: "+condition+"\n"))
			return 1
		}
	}
	return 0
}

func holds(condition string) bool {
	if path, ok := strings.CutSuffix(condition, "=ro"); ok {
		var st unix.Statfs_t
		return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_RDONLY != 0
	}
	var st unix.Stat_t
	path, device, hasDevice := strings.Cut(condition, "!")
	if err := unix.Stat(path, &st); err != nil {
		return false
	}
	if hasDevice {
		return strconv.FormatUint(st.Dev, 10) != device
	}
	return st.Uid == 0 && st.Gid == 0
}

// runMonitor monitors one container until the container has exited.
func runMonitor() int {
	detach()
	spec, err := readSpec()
	if err == nil {
		err = newMonitor(spec).run()
	}
	if err != nil {
		_ = sendStarted(0, 0, err.Error())
		return 1
	}
	return 0
}

// detach makes the process independent of the daemon that started it.
func detach() {
	_, _ = unix.Setsid()
	// The runtime exits before the container does. As a subreaper, this process becomes the
	// parent of the container's first process, and so learns its exit status.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	_ = sys.WriteFile("/proc/self/comm", []byte("conmon"))
	resetIgnoredSignals()
	closeInherited()
	unix.CloseOnExec(wire.SpecFD)
	unix.CloseOnExec(wire.StartedFD)
}

// sigaction is the struct of rt_sigaction(2). Kernels of riscv64 and loong64 have no restorer,
// so there the kernel's mask is in the field restorer. resetIgnoredSignals writes the value back
// that it has read, and changes only the handler, which is the first field on every architecture.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// resetIgnoredSignals sets ignored signals back to the default action. If the daemon was
// started with ignored signals, as a shell does for background jobs, the container would
// inherit them. The Go runtime resets the signals that Go handles in child processes.
func resetIgnoredSignals() {
	const (
		last       = 64
		sigDefault = 0 // SIG_DFL
		sigIgnored = 1 // SIG_IGN
	)
	for sig := uintptr(1); sig <= last; sig++ {
		var action sigaction
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&action)), unsafe.Sizeof(action.mask), 0, 0)
		if errno == 0 && action.handler == sigIgnored {
			action.handler = sigDefault
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&action)), 0, unsafe.Sizeof(action.mask), 0, 0)
		}
	}
}

// closeInherited closes the descriptors that the parent has leaked: all numbers above those that
// package wire defines. The Go runtime has not opened any descriptor yet.
func closeInherited() {
	const first = wire.StartedFD + 1
	if unix.CloseRange(first, 1<<31-1, 0) == nil {
		return
	}
	for fd := first; fd < 1024; fd++ { // Linux before 5.9
		_ = unix.Close(fd)
	}
}

// ignoreSignals makes the monitor ignore signals to the process group of the daemon, to a
// terminal, or to every process at a shutdown: the monitor exits when its container has exited.
// It is called after the OCI runtime was started, because the container would inherit ignored
// signals. Without SIGXFSZ, a write beyond a file size limit fails like any other write.
func ignoreSignals() {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGXFSZ)
}

// pause holds a pod's namespaces until SIGTERM or SIGINT. It is process 1 of the pod's PID
// namespace; the Go runtime ends the program on these signals even as process 1. Because
// SIGCHLD is ignored, children never become zombies, so pause need not reap them.
func pause() {
	signal.Ignore(syscall.SIGCHLD, syscall.SIGHUP)
	_ = sys.WriteFile("/proc/self/comm", []byte("pause"))
	_ = unix.CloseRange(3, 1<<31-1, 0)
	for {
		_ = unix.Pause()
	}
}

// readSpec reads the Spec from its descriptor and closes the descriptor. The strings of the
// Spec stay in the buffer, which costs only the pages that were written.
func readSpec() (wire.Spec, error) {
	b, err := sys.NewBuffer(maxSpec)
	if err == nil {
		b, err = sys.ReadAll(wire.SpecFD, b)
	}
	_ = unix.Close(wire.SpecFD)
	if err != nil {
		return wire.Spec{}, sys.Wrap("read spec", err)
	}
	spec, err := wire.DecodeSpec(b)
	if err != nil {
		return wire.Spec{}, sys.Wrap("read spec", err)
	}
	switch {
	case spec.Version != wire.Version:
		return spec, errors.New("read spec: unknown version")
	case spec.ID == "", len(spec.Runtime) == 0, !path.IsAbs(spec.RunDir), !path.IsAbs(spec.Bundle), !path.IsAbs(spec.ExitFile),
		!path.IsAbs(spec.Runtime[0]), spec.LogPath != "" && !path.IsAbs(spec.LogPath),
		spec.RestoreImages != "" && !path.IsAbs(spec.RestoreImages):
		return spec, errors.New("read spec: a field is missing or a path is not absolute")
	}
	return spec, nil
}

// maxSpec bounds a Spec, in bytes.
const maxSpec = 1 << 20

// sendStarted sends the daemon the result of create: the container's first process, or failure.
// It returns an error if the daemon has closed the pipe.
func sendStarted(pid int, start uint64, failure string) error {
	_, err := sys.Write(wire.StartedFD, wire.AppendStarted(nil, pid, start, failure))
	return err
}
