package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/criserver/criserver/config"
)

// listen creates the gRPC socket. The daemon holds the lock of the run directory, so it
// replaces an existing socket of an earlier daemon, but not one that another process serves.
func listen(cfg config.Config) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(cfg.Socket), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", cfg.Socket); err == nil {
		return nil, errors.Join(fmt.Errorf("socket %s is served by another process", cfg.Socket), c.Close())
	}
	if err := os.Remove(cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// With the daemon's umask a new socket has the mode 0755. Only the owner has the write
	// permission that a client needs to connect, so only root can connect until
	// setSocketPermissions has set the group.
	l, err := net.Listen("unix", cfg.Socket)
	if err != nil {
		return nil, err
	}
	if err := setSocketPermissions(cfg.Socket, cfg.SocketGroup); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// setSocketPermissions sets the group of the socket, unless group is empty, and allows the
// owner and the group to connect.
func setSocketPermissions(socket, group string) error {
	if group != "" {
		gid, err := groupID(group)
		if err == nil {
			err = os.Chown(socket, -1, gid)
		}
		if err != nil {
			return fmt.Errorf("socket_group: %w", err)
		}
	}
	return os.Chmod(socket, 0o660)
}

// groupID returns the ID of a group that is given by its name or its ID.
func groupID(group string) (int, error) {
	if gid, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(gid), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// listenStreams opens the TCP socket of the streaming server.
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
