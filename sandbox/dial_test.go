package sandbox

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestDial(t *testing.T) {
	b, _ := fakeBed(t)
	m := b.start()
	p := mustRun(t, m, podConfig("dial"))
	listen := func(addr string) uint16 {
		var port uint16
		inNetNS(t, p.Namespaces.Net, func() error {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = l.Close() })
			port = netip.MustParseAddrPort(l.Addr().String()).Port()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = io.WriteString(c, addr)
					_ = c.Close()
				}
			}()
			return nil
		})
		return port
	}
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		c, err := m.Dial(t.Context(), p.ID[:12], listen(addr))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil || string(got) != addr {
			t.Errorf("%s: got %q, %v", addr, got, err)
		}
		_ = c.Close()
	}
	if _, err := m.Dial(t.Context(), p.ID, 1); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("port without a listener: got error %v", err)
	}
	if err := m.Stop(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Dial(t.Context(), p.ID, 1); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("stopped pod: got error %v", err)
	}
	mustRemove(t, m, p.ID)
	if _, err := m.Dial(t.Context(), p.ID, 1); !errdefs.IsNotFound(err) {
		t.Errorf("removed pod: got error %v", err)
	}

	// Dial connects to the network of the host for a pod with this network.
	h := mustRun(t, m, hostPod("host"))
	defer mustRemove(t, m, h.ID)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := m.Dial(t.Context(), h.ID, netip.MustParseAddrPort(l.Addr().String()).Port())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}
