package monitor

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wrap is fmt.Errorf("%s: %w") without fmt.
func wrap(what string, err error) error { return &wrapped{what, err} }

type wrapped struct {
	what string
	err  error
}

func (w *wrapped) Error() string { return w.what + ": " + w.err.Error() }
func (w *wrapped) Unwrap() error { return w.err }

// wrapNil is wrap of an error that may be nil.
func wrapNil(what string, err error) error {
	if err == nil {
		return nil
	}
	return wrap(what, err)
}

// read and write are the system calls, without telling the Go scheduler.
func read(fd int, b []byte) (int, error) {
	return raw(unix.SYS_READ, fd, b)
}

func write(fd int, b []byte) (int, error) {
	return raw(unix.SYS_WRITE, fd, b)
}

func raw(call uintptr, fd int, b []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// readAll reads to the end of what fd refers to into b, or fails when b is full.
func readAll(fd int, b []byte) ([]byte, error) {
	for n := 0; n < len(b); {
		got, err := read(fd, b[n:])
		if err != nil {
			return nil, err
		}
		if got == 0 {
			return b[:n], nil
		}
		n += got
	}
	return nil, errors.New("too large")
}

// readFile reads a small file, of /proc, /sys, or the OCI runtime's making, into
// b, which bounds its size.
func readFile(name string, b []byte) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, wrap("open "+name, err)
	}
	defer unix.Close(fd)
	if b, err = readAll(fd, b); err != nil {
		return nil, wrap("read "+name, err)
	}
	return b, nil
}

func writeFile(name string, b []byte) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = write(fd, b)
	return err
}

// buffer is memory outside the Go heap that can be given back to the kernel
// and comes back, zeroed, when it is touched again.
type buffer []byte

func newBuffer(size int) (buffer, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, wrap("mmap", err)
	}
	// A huge page for the first byte of it would be the opposite of the point.
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
	return b, nil
}

// release gives the memory back. The content is gone.
func (b buffer) release() { _ = unix.Madvise(b, unix.MADV_DONTNEED) }

// closeFD closes *fd unless it is closed already, and marks it so.
func closeFD(fd *int) {
	if *fd >= 0 {
		_ = unix.Close(*fd)
		*fd = -1
	}
}
