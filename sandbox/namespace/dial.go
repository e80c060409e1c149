package namespace

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/criserver/criserver/internal/osthread"
	"golang.org/x/sys/unix"
)

// Dial connects to a TCP address inside the network namespace pinned at path,
// or in the calling process's own where path is empty. A socket stays in the
// namespace in which it was made, whoever uses it later.
func Dial(ctx context.Context, path string, to netip.AddrPort) (conn net.Conn, err error) {
	// An address needs no resolver, and one alone no race of several, so that
	// the socket is made on the calling thread.
	dial := func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
		return err
	}
	if path == "" {
		err = dial()
		return conn, err
	}
	err = osthread.Run(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", path, err)
		}
		return dial()
	})
	return conn, err
}
