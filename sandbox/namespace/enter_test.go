package namespace

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/patience"
	"golang.org/x/sys/unix"
)

func TestDial(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can create namespaces")
	}
	dir := filepath.Join(t.TempDir(), "ns")
	if err := Make(Spec{Dir: dir, Net: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := UnpinAll(dir); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, Net)
	l := listen(t, path)
	addr := netip.MustParseAddrPort(l.Addr().String())

	ctx, cancel := context.WithTimeout(t.Context(), patience.For(time.Minute))
	defer cancel()
	c, err := Dial(ctx, path, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	b := make([]byte, 1)
	if _, err := peer.Read(b); err != nil || b[0] != 'x' {
		t.Errorf("got %q, %v; want \"x\"", b, err)
	}

	// The listener is in the pinned namespace only, and the thread of the test has never entered it.
	if c, err := Dial(ctx, "", addr); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dial from the host: %v, %v", c, err)
	}
	if c, err := Dial(ctx, path, netip.AddrPortFrom(addr.Addr(), addr.Port()^1)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dial another port: %v, %v", c, err)
	}
	if c, err := Dial(ctx, filepath.Join(dir, "none"), addr); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("dial in a namespace that does not exist: %v, %v", c, err)
	}
}

// listen listens on a TCP port in a network namespace until the end of the test.
func listen(t *testing.T, path string) (l net.Listener) {
	t.Helper()
	err := RunInNet(path, func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}
