package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/config"
)

// claim takes the state directories for this process. The locks end with it,
// however it ends.
func claim(dirs ...string) ([]*os.File, error) {
	var held []*os.File
	for _, dir := range dirs {
		f, err := claimOne(dir)
		if err != nil {
			return nil, errors.Join(err, closeAll(held))
		}
		held = append(held, f)
	}
	return held, nil
}

func claimOne(dir string) (*os.File, error) {
	// Others may pass through, as mounts below belong to containers of other
	// users, and may not look around.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is in use by another daemon: %w", dir, err), f.Close())
	}
	return f, nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// listen opens the socket. The lock on the run directory is held, so a socket
// that is there already is a dead daemon's, unless somebody answers on it.
func listen(cfg config.Config) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(cfg.Socket), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", cfg.Socket); err == nil {
		return nil, errors.Join(fmt.Errorf("socket %s: somebody answers on it", cfg.Socket), c.Close())
	}
	if err := os.Remove(cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// With the daemon's umask a new socket has the mode 0755. Only the owner has the write
	// permission that a client needs to connect, so only root can connect until permit
	// has set the group.
	l, err := net.Listen("unix", cfg.Socket)
	if err != nil {
		return nil, err
	}
	if err := permit(cfg); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// permit gives the socket its group and lets the group connect.
func permit(cfg config.Config) error {
	if cfg.SocketGroup != "" {
		gid, err := groupID(cfg.SocketGroup)
		if err == nil {
			err = os.Chown(cfg.Socket, -1, gid)
		}
		if err != nil {
			return fmt.Errorf("socket_group: %w", err)
		}
	}
	return os.Chmod(cfg.Socket, 0o660)
}

// listenStreams opens the address of the streaming server.
func listenStreams(cfg config.Config) (*net.TCPListener, error) {
	addr, err := netip.ParseAddrPort(cfg.Streaming.Address)
	if err != nil {
		return nil, fmt.Errorf("streaming.address: %w", err)
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("streaming.address: %w", err)
	}
	return l, nil
}

func groupID(name string) (int, error) {
	if gid, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(gid), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}
