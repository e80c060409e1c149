// Package listen creates the sockets of the daemon with their permissions.
package listen

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/server/streaming"
)

// CRI creates the socket of the CRI.
func CRI(cfg config.Config) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(cfg.Socket), 0o755); err != nil {
		return nil, err
	}
	return Unix(cfg.Socket, func() error { return setSocketPermissions(cfg.Socket, cfg.SocketGroup) })
}

// Admin creates the socket of the administration API, to which only the user of the
// daemon can connect. Another user who could write to the directory of the socket could
// replace the socket, and the commands would talk to a process of that user.
func Admin(cfg config.Config) (net.Listener, error) {
	dir := filepath.Dir(cfg.AdminSocket)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("admin_socket: the directory %s must belong to user %d, and no other user may write to it", dir, os.Geteuid())
	}
	return Unix(cfg.AdminSocket, func() error { return os.Chmod(cfg.AdminSocket, 0o600) })
}

// Unix creates a unix socket. The daemon holds the lock of the run directory, so it
// replaces an existing socket of an earlier daemon, but not one that another process serves.
//
// With the daemon's umask a new socket has the mode 0755. Only the owner has the write
// permission that a client needs to connect, so only the owner and root can connect until
// setPermissions has returned.
func Unix(path string, setPermissions func() error) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("socket %s is served by another process", path), c.Close())
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != os.ModeSocket: // a wrong path must not delete a file
		return nil, fmt.Errorf("%s exists and is not a socket", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := setPermissions(); err != nil {
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

// Streams opens the TCP socket of the streaming server.
func Streams(cfg config.Config) (*net.TCPListener, error) {
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

// StreamingTLS returns the TLS configuration of the streaming server.
func StreamingTLS(s config.Streaming) (*tls.Config, error) {
	suites, err := config.CipherSuites(s.TLSCipherSuites)
	if err != nil {
		return nil, fmt.Errorf("streaming.tls_cipher_suites: %w", err)
	}
	o := streaming.TLSOptions{CertFile: s.TLSCert, KeyFile: s.TLSKey, ClientCAFile: s.TLSClientCA, CipherSuites: suites}
	if s.TLSMinVersion == config.TLS13 {
		o.MinVersion = tls.VersionTLS13
	}
	return streaming.TLSConfig(o)
}
