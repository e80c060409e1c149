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

// wrapIf is wrap, but returns nil if err is nil.
func wrapIf(what string, err error) error {
	if err == nil {
		return nil
	}
	return wrap(what, err)
}

// read and write are the system calls. The Go scheduler does not know about them: see the
// package comment.
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

// readAll reads fd to its end into b. It fails if b is too small.
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

// readFile reads a small file, from /proc, /sys or the OCI runtime, into b. It fails if b is
// too small.
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

// buffer is memory outside the Go heap. After release it takes no memory; it is zeroed when it
// is used again.
type buffer []byte

func newBuffer(size int) (buffer, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, wrap("mmap", err)
	}
	// A huge page for the first byte would need much more memory than the buffer uses.
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
	return b, nil
}

// release gives the memory back to the kernel. The content is lost.
func (b buffer) release() { _ = unix.Madvise(b, unix.MADV_DONTNEED) }

// closeFD closes *fd unless it is -1, and sets it to -1.
func closeFD(fd *int) {
	if *fd >= 0 {
		_ = unix.Close(*fd)
		*fd = -1
	}
}
