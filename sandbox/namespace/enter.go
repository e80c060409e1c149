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

// enter moves the calling thread into the namespace that f refers to. kind is the CLONE_NEW flag of the namespace,
// or 0 for any kind. The thread must belong to [osthread.Run], because it cannot be used for anything else afterwards.
func enter(f *os.File, kind int) error {
	if err := unix.Setns(int(f.Fd()), kind); err != nil {
		return fmt.Errorf("enter namespace %s: %w", f.Name(), err)
	}
	return nil
}

// enterNet moves the calling thread into the network namespace pinned at path.
func enterNet(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return enter(f, unix.CLONE_NEWNET)
}

// RunInNet runs fn on a thread in the network namespace pinned at path. The thread ends when fn returns. fn must not
// start goroutines that need the namespace; sockets that fn opens stay in the namespace.
func RunInNet(path string, fn func() error) error {
	return osthread.Run(func() error {
		if err := enterNet(path); err != nil {
			return err
		}
		return fn()
	})
}

// Dial connects to a TCP address inside the network namespace pinned at path. If path is empty, Dial connects from the
// network namespace of the calling process.
func Dial(ctx context.Context, path string, to netip.AddrPort) (conn net.Conn, err error) {
	// The dialer creates the socket on the calling thread, because the address needs no resolver, and because one
	// address does not start concurrent attempts.
	dial := func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
		return err
	}
	if path == "" {
		err = dial()
		return conn, err
	}
	err = RunInNet(path, dial)
	return conn, err
}
