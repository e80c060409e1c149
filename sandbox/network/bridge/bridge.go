package bridge

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

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
func ensureGateways(c *rtnl.Conn, bridge int, ls []lease) error {
	for _, le := range ls {
		err := c.AddAddr(bridge, gatewayPrefix(le))
		if err != nil && !errors.Is(err, unix.EEXIST) {
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
func waitRunning(c *rtnl.Conn, name string) (rtnl.Link, error) {
	deadline := time.Now().Add(portWait)
	for pause := time.Millisecond; ; pause = min(2*pause, maxPause) {
		l, err := c.LinkByName(name)
		if err != nil || l.Running {
			return l, err
		}
		if time.Now().After(deadline) {
			return l, fmt.Errorf("port %s of the bridge does not come up", name)
		}
		time.Sleep(pause)
	}
}
