package proc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watcher calls functions when processes exit. It needs one epoll set over the pidfds and one
// goroutine for all processes.
type Watcher struct {
	epoll int
	wake  int // eventfd that wakes Run up

	mu      sync.Mutex      // guards watched and closed
	watched map[int32]watch // by pidfd
	closed  bool
}

type watch struct {
	pidfd  *os.File
	exited func(pidfd *os.File)
}

// NewWatcher returns a Watcher. Run must be called: it calls the functions, and releases the
// descriptors when it ends.
func NewWatcher() (*Watcher, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), unix.Close(ep))
	}
	return &Watcher{epoll: ep, wake: wake, watched: make(map[int32]watch)}, nil
}

// Watch calls exited once, in a new goroutine, when the process of r has exited. The pidfd
// stays open until exited returns, so that exited can call ExitStatus. Watch returns ErrGone if
// the process was already reaped; then exited is not called.
func (w *Watcher) Watch(r Ref, exited func(pidfd *os.File)) error {
	f, err := r.Open()
	if err != nil {
		return err
	}
	fd := int32(f.Fd())
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errors.Join(errors.New("watch process: the watcher has stopped"), f.Close())
	}
	w.watched[fd] = watch{f, exited}
	if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: fd}); err != nil {
		delete(w.watched, fd)
		return errors.Join(fmt.Errorf("watch pid %d: %w", r.PID, err), f.Close())
	}
	return nil
}

// Run calls the functions of processes that exit until ctx ends. It returns when all functions
// have returned.
func (w *Watcher) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _, _ = unix.Write(w.wake, binary.NativeEndian.AppendUint64(nil, 1)) })
	defer stop()
	var callbacks sync.WaitGroup
	defer callbacks.Wait()
	events := make([]unix.EpollEvent, 64)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(w.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return errors.Join(fmt.Errorf("wait for processes: %w", err), w.release())
		}
		for _, ev := range events[:max(n, 0)] {
			if e, ok := w.take(ev.Fd); ok {
				callbacks.Go(func() {
					e.exited(e.pidfd)
					_ = e.pidfd.Close()
				})
			}
		}
	}
	return w.release()
}

// take removes a pidfd from the watched ones and returns its entry.
func (w *Watcher) take(fd int32) (watch, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e, ok := w.watched[fd]
	delete(w.watched, fd)
	if ok {
		_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, int(fd), nil)
	}
	return e, ok
}

// release closes all descriptors.
func (w *Watcher) release() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	var errs []error
	for fd, e := range w.watched {
		delete(w.watched, fd)
		errs = append(errs, e.pidfd.Close())
	}
	return errors.Join(append(errs, unix.Close(w.wake), unix.Close(w.epoll))...)
}

// pidfdInfo is struct pidfd_info of linux/pidfd.h in its first published size.
type pidfdInfo struct {
	mask, cgroupID                           uint64
	pid, tgid, ppid                          uint32
	ruid, rgid, euid, egid, suid, sgid, fsid uint32
	fsgid                                    uint32
	exitCode                                 int32
}

const (
	pidfdGetInfo  = 0xC040FF0B // _IOWR(0xFF, 11, struct pidfd_info), 64 bytes
	pidfdInfoExit = 1 << 3     // PIDFD_INFO_EXIT, Linux 6.15
)

// ErrNotReaped reports that the process has no wait status yet.
var ErrNotReaped = errors.New("the process has not been reaped")

// ExitStatus returns the wait status of a process that has exited and was reaped. Only Linux
// 6.15 and later return the status to a process that is not the parent. On earlier kernels, the
// error is not ErrNotReaped.
func ExitStatus(pidfd *os.File) (unix.WaitStatus, error) {
	info := pidfdInfo{mask: pidfdInfoExit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, pidfd.Fd(), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 {
		return 0, os.NewSyscallError("ioctl PIDFD_GET_INFO", errno)
	}
	if info.mask&pidfdInfoExit == 0 {
		return 0, ErrNotReaped
	}
	return unix.WaitStatus(info.exitCode), nil
}
