package network

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network/nat"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// udpTest is a network with a host port that UDP clients of the host use.
type udpTest struct {
	n    *Network
	dir  string
	conn net.Conn // of a client that keeps its source port
}

func newUDPTest(t *testing.T) *udpTest {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"bridge", "host-local", "portmap"} {
		writeFile(t, dir, name, "#!/bin/sh\necho '{\"cniVersion\":\"1.1.0\",\"code\":100,\"msg\":\"no plugin must run\"}'\nexit 1\n")
	}
	writeFile(t, dir, "10-udp.conflist", fmt.Sprintf(`{"cniVersion":"1.1.0","name":"udp","plugins":[
{"type":"bridge","bridge":"criudp0","isGateway":true,"hairpinMode":true,"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.67.0.0/24"}]]}},
{"type":"portmap","snat":true,"capabilities":{"portMappings":true}}]}`, filepath.Join(dir, "leases")))
	n := New(Config{ConfDirs: []string{dir}, BinDirs: []string{dir}, CacheDir: filepath.Join(dir, "cache")})
	if _, err := n.Reload(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	return &udpTest{n: n, dir: dir}
}

// attach attaches a pod that answers each datagram to UDP port 80 with its name, and returns a function that detaches
// the pod.
func (u *udpTest) attach(t *testing.T, name string) (detach func()) {
	t.Helper()
	pod := Pod{ID: name, Name: name, Namespace: "n", UID: name, NetNS: makeNetNS(t), PortMappings: []PortMapping{{HostPort: 18080, ContainerPort: 80, Protocol: "udp"}}}
	plan, err := u.n.podList(u.n.loaded.Load().list, pod)
	if err != nil {
		t.Fatal(err)
	}
	i := Default(plan.planned)
	res, err := u.n.Attach(t.Context(), pod, i)
	if err != nil {
		t.Fatal(err)
	}
	i.Result = res.JSON
	err = namespace.RunInNet(pod.NetNS, func() error {
		c, err := net.ListenPacket("udp", ":80")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			for {
				_, from, err := c.ReadFrom(make([]byte, 1))
				if err != nil {
					return
				}
				_, _ = c.WriteTo([]byte(name), from)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := u.n.Detach(t.Context(), pod, i); err != nil {
			t.Error(err)
		}
	}
}

// ask sends a datagram from the same source port as before and returns the answer.
func (u *udpTest) ask(t *testing.T) (string, error) {
	t.Helper()
	if u.conn == nil {
		c, err := net.Dial("udp", "10.67.0.1:18080")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		u.conn = c
	}
	if _, err := u.conn.Write([]byte("x")); err != nil {
		return "", err
	}
	if err := u.conn.SetReadDeadline(time.Now().Add(patience.For(2 * time.Second))); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16)
	n, err := u.conn.Read(b)
	return string(b[:n]), err
}

func (u *udpTest) wantAnswer(t *testing.T, want string) {
	t.Helper()
	if got, err := u.ask(t); got != want {
		t.Errorf("got the answer %q, %v; want %q", got, err, want)
	}
}

// wantRefused checks that the host refuses datagrams. A flow to a removed pod would get no answer at all.
func (u *udpTest) wantRefused(t *testing.T) {
	t.Helper()
	if got, err := u.ask(t); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("got the answer %q, %v; want ECONNREFUSED", got, err)
	}
}

// flows returns the connection tracking entries of the host port.
func flows(t *testing.T) (out []*netlink.ConntrackFlow) {
	t.Helper()
	all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.Forward.DstPort == 18080 {
			out = append(out, f)
		}
	}
	return out
}

// TestUDPHostPort checks that a client that keeps its source port reaches neither a removed pod nor the pod before.
func TestUDPHostPort(t *testing.T) {
	for _, silent := range []bool{true, false} {
		t.Run(fmt.Sprintf("silent=%t", silent), func(t *testing.T) {
			u := newUDPTest(t)
			detach := u.attach(t, "a")
			u.wantAnswer(t, "a")
			if len(flows(t)) == 0 {
				t.Fatal("the connection tracking table has no entry of the flow")
			}
			detach()
			if left := flows(t); len(left) > 0 {
				t.Errorf("flows that are left after DEL: %v", left)
			}
			if !silent { // the datagram makes an entry that bypasses the new pod
				u.wantRefused(t)
			}
			detach = u.attach(t, "b")
			u.wantAnswer(t, "b")
			detach()
		})
	}
}

// TestUDPHostPortRestored deletes the table while a client sends datagrams.
func TestUDPHostPortRestored(t *testing.T) {
	u := newUDPTest(t)
	defer u.attach(t, "a")()
	u.wantAnswer(t, "a")
	if out, err := exec.Command("nft", "delete", "table", "inet", nat.HostPortsTable("udp")).CombinedOutput(); err != nil {
		t.Fatalf("delete the table of host ports: %v: %s", err, out)
	}
	if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		t.Fatalf("delete the flows: %v", err)
	}
	u.wantRefused(t)
	if !u.n.reconcileTables(t.Context(), true) {
		t.Error("the table was not restored")
	}
	u.wantAnswer(t, "a")
}
