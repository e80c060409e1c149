package criu

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

// errRefused reports that the monitor does not restore a container.
var errRefused = errors.New("unknown operation")

// announce sends the monitor a request that names this process.
func announce(runDir string) error {
	dir, err := unix.Open(runDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The path of the directory can be too long for a socket address.
	name := "/proc/self/fd/" + strconv.Itoa(dir) + "/" + wire.ControlSocket
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return err
	}
	if _, err := sys.Write(fd, []byte(`{"op":"`+wire.OpCRIU+`"}`+"\n")); err != nil {
		return err
	}
	var b [wire.MaxRequest]byte
	n, err := sys.Read(fd, b[:])
	if err == nil && string(b[:n]) != string(wire.AppendReply(nil, "")) {
		err = errRefused
	}
	return err
}
