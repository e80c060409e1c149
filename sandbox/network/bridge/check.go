package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/criserver/criserver/sandbox/namespace"
)

// check returns an error if the veth pair, the bridge port, the addresses of the pod and of the
// bridge, or the leases are not as add has left them.
func check(c *conf, call Call) error {
	host, leases, ok := previous(c)
	if !ok || host.name == "" {
		return errors.New("the configuration has no result of ADD, or the result has no interface of the host")
	}
	h, err := openNetlink()
	if err != nil {
		return err
	}
	defer h.Close()
	bridge, err := linkByName(h, c.Bridge)
	if err != nil {
		return err
	}
	l, err := linkByName(h, host.name)
	if err != nil {
		return err
	}
	if l.Attrs().MasterIndex != bridge.Attrs().Index || l.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("interface %s is down, or is not a port of bridge %s", host.name, c.Bridge)
	}
	if c.IsGateway || c.IsDefaultGateway {
		if err := checkAddresses(c.Bridge, gateways(c, leases)); err != nil {
			return err
		}
	}
	addrs := make([]netip.Addr, len(leases))
	for i, l := range leases {
		addrs[i] = l.addr.Addr()
	}
	if err := namespace.RunInNet(call.NetNS, func() error { return checkAddresses(call.IfName, addrs) }); err != nil {
		return err
	}
	return c.leaseDir().checkOwner(leases, owner(call.ContainerID, call.IfName))
}

// gateways returns the gateways of the subnets that the addresses belong to.
func gateways(c *conf, leases []lease) []netip.Addr {
	var out []netip.Addr
	for _, r := range slices.Concat(c.ranges...) {
		for _, l := range leases {
			subnet := net.IPNet(r.Subnet)
			if gateway, ok := netip.AddrFromSlice(r.Gateway); ok && subnet.Contains(l.addr.Addr().AsSlice()) {
				out = append(out, gateway.Unmap())
			}
		}
	}
	return out
}

// checkAddresses returns an error if an interface in the network namespace of the calling thread lacks an address.
func checkAddresses(name string, want []netip.Addr) error {
	h, err := openNetlink()
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := linkByName(h, name)
	if err != nil {
		return err
	}
	var have []netip.Addr
	for _, v6 := range []bool{false, true} {
		addrs, err := addresses(h, l, v6)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			have = append(have, a.Addr())
		}
	}
	for _, a := range want {
		if !slices.Contains(have, a) {
			return fmt.Errorf("interface %s has lost the address %s", name, a)
		}
	}
	return nil
}
