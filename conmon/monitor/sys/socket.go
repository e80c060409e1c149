package sys

import "golang.org/x/sys/unix"

// Listen makes a listening socket in the working directory of a kind such as SOCK_STREAM that only the
// user of the process can connect to. The relative name is always short enough for a socket address.
func Listen(name string, kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, Wrap("make socket", err)
	}
	_ = unix.Unlink(name)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	if err == nil {
		err = unix.Chmod(name, 0o600)
	}
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, Wrap("listen on "+name, err)
	}
	return fd, nil
}
