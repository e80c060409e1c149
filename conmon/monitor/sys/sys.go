// Package sys contains the system calls, the buffers and the epoll set of the monitor process. The Go scheduler does
// not know about the frequent calls, and the calls allocate no memory: the comment of package monitor has the
// reasons. Package sys knows nothing of containers.
package sys

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Wrap is fmt.Errorf("%s: %w") without fmt.
func Wrap(what string, err error) error { return &wrapped{what, err} }

type wrapped struct {
	what string
	err  error
}

func (w *wrapped) Error() string { return w.what + ": " + w.err.Error() }
func (w *wrapped) Unwrap() error { return w.err }

// WrapIf is Wrap, but returns nil if err is nil.
func WrapIf(what string, err error) error {
	if err == nil {
		return nil
	}
	return Wrap(what, err)
}

// Read is the system call read(2), without the Go scheduler. It repeats an interrupted call.
func Read(fd int, b []byte) (int, error) {
	return raw(unix.SYS_READ, fd, b)
}

// Write is the system call write(2), without the Go scheduler. It repeats an interrupted call, and can write less
// than b.
func Write(fd int, b []byte) (int, error) {
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

// ReadAll reads fd to its end into b. It fails if b is too small.
func ReadAll(fd int, b []byte) ([]byte, error) {
	for n := 0; n < len(b); {
		got, err := Read(fd, b[n:])
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

// ReadFile reads a small file, from /proc, /sys or the OCI runtime, into b. It fails if b is
// too small.
func ReadFile(name string, b []byte) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, Wrap("open "+name, err)
	}
	defer unix.Close(fd)
	if b, err = ReadAll(fd, b); err != nil {
		return nil, Wrap("read "+name, err)
	}
	return b, nil
}

// WriteFile writes b to an existing file with one system call.
func WriteFile(name string, b []byte) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = Write(fd, b)
	return err
}

// Buffer is memory outside the Go heap. After Release it takes no memory; it is zeroed when it
// is used again.
type Buffer []byte

// NewBuffer returns a Buffer of size bytes.
func NewBuffer(size int) (Buffer, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, Wrap("mmap", err)
	}
	// A huge page for the first byte would need much more memory than the buffer uses.
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
	return b, nil
}

// Release gives the memory back to the kernel. The content is lost.
func (b Buffer) Release() { _ = unix.Madvise(b, unix.MADV_DONTNEED) }

// CloseFD closes *fd unless it is -1, and sets it to -1.
func CloseFD(fd *int) {
	if *fd >= 0 {
		_ = unix.Close(*fd)
		*fd = -1
	}
}
