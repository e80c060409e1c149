package bridge

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/rtnl"
	"golang.org/x/sys/unix"
)

// newMAC returns a random address, locally administered and for one interface.
func newMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // crypto/rand.Read never fails
	mac[0] = mac[0]&^1 | 2
	return mac
}

func newVethName() string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return "veth" + hex.EncodeToString(b[:])
}

// ensureBridge returns the bridge, which is made when it is missing.
func ensureBridge(c *rtnl.Conn, name string, mtu int) (rtnl.Link, error) {
	l, err := c.LinkByName(name)
	if errors.Is(err, unix.ENODEV) {
		if err := c.AddBridge(name, newMAC(), mtu); err != nil && !errors.Is(err, unix.EEXIST) {
			return l, err
		}
		// The kernel must not take routes from whoever is on the bridge.
		if err := sysctl("net/ipv6/conf/"+name+"/accept_ra", "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return l, err
		}
		l, err = c.LinkByName(name)
	}
	if err != nil {
		return l, err
	}
	if l.Kind != "bridge" {
		return l, fmt.Errorf("interface %s is a %q, not a bridge", name, l.Kind)
	}
	if !l.Up {
		return l, c.SetUp(l.Index)
	}
	return l, nil
}

// ensureGateways gives the bridge the addresses that pods have as gateways, and
// lets the host forward their traffic.
func ensureGateways(c *rtnl.Conn, bridge rtnl.Link, ls []lease) error {
	for _, le := range ls {
		if err := ensureGateway(c, bridge, gatewayPrefix(le)); err != nil {
			return err
		}
		forwarding := "net/ipv4/ip_forward"
		if le.gateway.Is6() {
			forwarding = "net/ipv6/conf/all/forwarding"
		}
		if err := sysctl(forwarding, "1"); err != nil {
			return err
		}
	}
	return nil
}

// ensureGateway refuses a gateway if the bridge has another address of the same
// subnet, which was the gateway before the configuration was changed: pods still use
// that address, and a new pod could be given it. The addresses of other subnets stay,
// as pods of an earlier configuration need their gateway.
func ensureGateway(c *rtnl.Conn, bridge rtnl.Link, gw netip.Prefix) error {
	addrs, err := c.Addrs(bridge.Index, gw.Addr().Is6())
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if a == gw {
			return nil
		}
		if a.Overlaps(gw) {
			return fmt.Errorf("bridge %s has the address %s, and the configuration has the gateway %s: delete the address when no pod uses it any more, or configure it as the gateway: %w",
				bridge.Name, a, gw, errdefs.ErrFailedPrecondition)
		}
	}
	if err := c.AddAddr(bridge.Index, gw); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// sysctl writes a value where it is another one: some writes walk all
// interfaces.
func sysctl(path, value string) error {
	path = "/proc/sys/" + path
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if string(bytes.TrimSpace(b)) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0o644)
}

// portWait bounds how long a port of the bridge may take to carry traffic. The
// kernel reports a change of the link within a second if it has a CPU for that.
const portWait = 30 * time.Second

// maxPause bounds the pause between two looks at the port.
const maxPause = 100 * time.Millisecond

// waitRunning waits for the kernel to notice that both ends are up.
func waitRunning(ctx context.Context, c *rtnl.Conn, name string) (rtnl.Link, error) {
	deadline := time.Now().Add(portWait)
	for pause := time.Millisecond; ; pause = min(2*pause, maxPause) {
		l, err := c.LinkByName(name)
		if err != nil || l.Running {
			return l, err
		}
		if time.Now().After(deadline) {
			return l, fmt.Errorf("port %s of the bridge does not come up", name)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return l, fmt.Errorf("port %s of the bridge is not up yet: %w", name, context.Cause(ctx))
		}
	}
}
