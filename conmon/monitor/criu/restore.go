package criu

import (
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
)

// RestoreMode is the argument with which the monitor runs its own program to run the runtime's restore.
const RestoreMode = "restore"

// RestoreCommand returns the command that runs a command of the runtime in a new mount namespace. The process is killed
// when its parent, the monitor, exits.
func RestoreCommand(runtimeArgs []string) []string {
	return append([]string{"/proc/self/exe", RestoreMode, strconv.Itoa(unix.Getpid())}, runtimeArgs...)
}

// ExecRestore executes a command of the runtime in a new mount namespace. args has the pid of the monitor and the
// command.
//
// The runtime mounts the volumes of the container for CRIU before it calls CRIU. In the mount namespace of the host,
// these mounts would remain when the runtime is killed, and a removal of the container would find them in the root file
// system. The new mounts are slaves of the host's mounts: CRIU can make a mount of the container a slave again only if
// the source of the mount is a slave or shared, and not if it is private.
func ExecRestore(args []string) int {
	err := error(unix.EINVAL)
	if len(args) > 1 {
		err = enterRestoreNamespace(args[0])
	}
	if err == nil {
		err = syscall.Exec(args[1], args[1:], syscall.Environ())
	}
	_, _ = unix.Write(2, []byte("run the runtime's restore: "+err.Error()+"\n"))
	return 1
}

// enterRestoreNamespace makes the mount namespace, and makes the kernel kill this process when its parent, the monitor
// with this pid, exits.
func enterRestoreNamespace(monitor string) error {
	runtime.LockOSThread()
	// The setting belongs to the thread that calls exec, which is not always the first thread.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if strconv.Itoa(unix.Getppid()) != monitor {
		return unix.ESRCH // the monitor has exited before the call of prctl
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return sys.Wrap("unshare the mount namespace", err)
	}
	return sys.WrapIf("make the mounts slaves", unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""))
}
