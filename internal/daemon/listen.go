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
