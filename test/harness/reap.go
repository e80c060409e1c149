package harness

import (
	"os"
	"os/signal"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pidOffset is where siginfo_t has si_pid, on 64-bit machines.
const pidOffset = 16

// reap buries the orphans that come to this process, as the machine's init
// does: the first process of a PID namespace does not end before every other
// one of it has been waited for, among them commands whose daemon was killed.
func reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for {
		for reapOne() {
		}
		select {
		case <-children:
		case <-time.After(100 * time.Millisecond): // one of this process's own stood before others
		}
	}
}

// reapOne waits for one orphan that has ended. What this process has started
// itself is left to whoever started it: it is of the same process group, and no
// process of a container or monitor is.
func reapOne() bool {
	var info [128]byte
	err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	pid := int(*(*int32)(unsafe.Pointer(&info[pidOffset])))
	if err != nil || pid == 0 {
		return false
	}
	if group, err := unix.Getpgid(pid); err != nil || group == unix.Getpgrp() {
		return false
	}
	_, err = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	return err == nil
}
