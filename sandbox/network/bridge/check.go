package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/criserver/criserver/internal/rtnl"
)

// check says what of an attachment is not as add left it: the pair, its port on
// the bridge, the addresses of both, and the leases.
func check(c *conf, call Call) error {
	host, ls, known := previous(c)
	if !known || host.name == "" {
		return errors.New("the result of ADD is not known or names no interface of the host")
	}
	conn, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	br, err := conn.LinkByName(c.Bridge)
	if err != nil {
		return err
	}
	l, err := conn.LinkByName(host.name)
	if err != nil {
		return err
	}
	if l.Master != br.Index || !l.Up {
		return fmt.Errorf("interface %s is not a port of bridge %s, or is down", host.name, c.Bridge)
	}
	if c.IsGateway || c.IsDefaultGateway {
		if err := hasAddrs(c.Bridge, gateways(c, ls)); err != nil {
			return err
		}
	}
	ns, err := os.Open(call.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	own := make([]netip.Addr, len(ls))
	for i, le := range ls {
		own[i] = le.addr.Addr()
	}
	if err := inside(ns, func() error { return hasAddrs(call.IfName, own) }); err != nil {
		return err
	}
	return leasesOf(c).holds(ls, owner(call.ContainerID, call.IfName))
}

// gateways are those of the subnets that the addresses are from.
func gateways(c *conf, ls []lease) []netip.Addr {
	var out []netip.Addr
	for _, set := range c.IPAM.Ranges {
		for _, s := range set {
			for _, le := range ls {
				if s.Subnet.Contains(le.addr.Addr()) {
					out = append(out, s.Gateway)
				}
			}
		}
	}
	return out
}

// hasAddrs looks at an interface of the calling thread's network namespace.
func hasAddrs(name string, want []netip.Addr) error {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	have := make(map[netip.Addr]bool)
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			have[p.Addr().Unmap()] = true
		}
	}
	for _, a := range want {
		if !have[a] {
			return fmt.Errorf("interface %s has no longer the address %s", name, a)
		}
	}
	return nil
}
