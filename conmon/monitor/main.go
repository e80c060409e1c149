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

	"github.com/criserver/criserver/conmon/wire"
)

const usage = `usage: conmon monitor ID   run a container; for the daemon, which opens descriptors 3 and 4
       conmon pause        hold a pod's namespaces; also under the name pause
       conmon probe [PATH|PATH!DEVICE]
                           succeed if all paths belong to root, or are not on the device
       conmon --version
`

// Main runs what args, the command line with its first word, ask for, and
// returns the exit status.
func Main(args []string, version string) int {
	mode := ""
	if len(args) > 1 {
		mode = args[1]
	}
	if len(args) > 0 && path.Base(args[0]) == "pause" {
		mode = "pause"
	}
	switch mode {
	case "monitor": // whatever follows is for those who list processes
		return monitorOne()
	case "pause":
		pause()
	case "probe": // proves that a container can run this binary
		return probe(args[2:])
	case "--version":
		_, _ = unix.Write(1, []byte("conmon version "+version+"\n"))
		return 0
	}
	_, _ = unix.Write(2, []byte(usage))
	return 2
}

// probe says whether all demands are met, as this process sees it: a path has to
// belong to root, or with "!" and a device number not to be on that device.
func probe(demands []string) int {
	for _, d := range demands {
		var st unix.Stat_t
		path, device, other := strings.Cut(d, "!")
		err := unix.Stat(path, &st)
		met := err == nil && st.Uid == 0 && st.Gid == 0
		if other {
			met = err == nil && strconv.FormatUint(st.Dev, 10) != device
		}
		if !met {
			_, _ = unix.Write(2, []byte("not met: "+d+"\n"))
			return 1
		}
	}
	return 0
}

// monitorOne is the monitor of one container.
func monitorOne() int {
	detach()
	spec, err := readSpec()
	if err == nil {
		err = newMonitor(spec).run()
	}
	if err != nil {
		_ = answer(0, 0, err.Error())
		return 1
	}
	return 0
}

// detach makes the process independent of the one that started it.
func detach() {
	_, _ = unix.Setsid()
	// Orphans of the OCI runtime, above all the container's first process,
	// become children of this process, so that it sees how they end.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	_ = writeFile("/proc/self/comm", []byte("conmon"))
	disinheritSignals()
	closeInherited()
	unix.CloseOnExec(wire.SpecFD)
	unix.CloseOnExec(wire.StartedFD)
}

// sigaction is the struct of rt_sigaction(2). Kernels of riscv64 and loong64 have
// no restorer, so the mask of the kernel is in the field restorer there. The code
// below writes back what it read and changes only the handler, which is the first
// field everywhere.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// disinheritSignals keeps signals that the daemon was started to ignore from
// being ignored in the container too. A shell does that to what runs in the
// background, for instance. What Go handles is reset in a child anyway.
func disinheritSignals() {
	const (
		last       = 64
		sigDefault = 0 // SIG_DFL
		sigIgnored = 1 // SIG_IGN
	)
	for sig := uintptr(1); sig <= last; sig++ {
		var now sigaction
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&now)), unsafe.Sizeof(now.mask), 0, 0)
		if errno == 0 && now.handler == sigIgnored {
			now.handler = sigDefault
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&now)), 0, unsafe.Sizeof(now.mask), 0, 0)
		}
	}
}

// closeInherited closes whatever the parent let slip behind the descriptors of
// the contract. The Go runtime has opened none of its own yet.
func closeInherited() {
	const first = wire.StartedFD + 1
	if unix.CloseRange(first, 1<<31-1, 0) == nil {
		return
	}
	for fd := first; fd < 1024; fd++ { // Linux before 5.9
		_ = unix.Close(fd)
	}
}

// shieldSignals lets the monitor live through what is sent to its daemon's
// process group, to a terminal, or at a shutdown to every process: it leaves
// when its container does. It is called after the OCI runtime was started, as
// ignored signals would be ignored in the container too. SIGXFSZ is a write
// beyond a file size limit, which has to fail like any other.
func shieldSignals() {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGXFSZ)
}

// pause holds a pod's namespaces as process 1 of its PID namespace until a
// SIGTERM or SIGINT, whose default action in a Go program is the end, also for
// a process 1. Children of an ignored SIGCHLD never become zombies, so there is
// nothing to reap.
func pause() {
	signal.Ignore(syscall.SIGCHLD, syscall.SIGHUP)
	_ = writeFile("/proc/self/comm", []byte("pause"))
	_ = unix.CloseRange(3, 1<<31-1, 0)
	for {
		_ = unix.Pause()
	}
}

// readSpec reads the Spec from its descriptor and closes that. Its strings stay
// where they were read, of which the kernel keeps what pages there are.
func readSpec() (wire.Spec, error) {
	b, err := newBuffer(maxSpec)
	if err == nil {
		b, err = readAll(wire.SpecFD, b)
	}
	_ = unix.Close(wire.SpecFD)
	if err != nil {
		return wire.Spec{}, wrap("read spec", err)
	}
	spec, err := wire.DecodeSpec(b)
	if err != nil {
		return wire.Spec{}, wrap("read spec", err)
	}
	switch {
	case spec.Version != wire.Version:
		return spec, errors.New("read spec: unknown version")
	case spec.ID == "", len(spec.Runtime) == 0, !path.IsAbs(spec.RunDir), !path.IsAbs(spec.Bundle), !path.IsAbs(spec.ExitFile),
		!path.IsAbs(spec.Runtime[0]), spec.LogPath != "" && !path.IsAbs(spec.LogPath):
		return spec, errors.New("read spec: a field is missing, or a path not absolute")
	}
	return spec, nil
}

// maxSpec bounds a Spec, in bytes.
const maxSpec = 1 << 20

// answer tells the daemon what became of its Spec. It fails when nobody is
// there to hear it.
func answer(pid int, start uint64, failure string) error {
	_, err := write(wire.StartedFD, wire.AppendStarted(nil, pid, start, failure))
	return err
}
