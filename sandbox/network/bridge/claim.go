package bridge

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Owner returns the alias of an interface, with which Claim marks the bridge of a daemon. exists is false if there is
// no interface of the name.
func Owner(name string) (owner string, exists bool, err error) {
	h, err := openNetlink()
	if err != nil {
		return "", false, err
	}
	defer h.Close()
	l, err := linkByName(h, name)
	if isNoLink(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	return l.Attrs().Alias, true, nil
}

// Claim creates a bridge with the gateway addresses of pods, unless the bridge exists, and marks it with its owner. The
// new bridge reserves the name and the ranges before the first pod needs them. It stays down until then, so the host
// has no routes to the ranges and agents that look for the address of the host ignore the bridge.
func Claim(name, owner string, gateways []netip.Prefix) error {
	h, err := openNetlink()
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := linkByName(h, name)
	isNew := isNoLink(err)
	if isNew {
		if err := addBridge(h, name, 0, 0); err != nil {
			return err
		}
		l, err = linkByName(h, name)
	}
	if err != nil {
		return err
	}
	if l.Type() != "bridge" {
		return fmt.Errorf("interface %s is of type %q and not a bridge", name, l.Type())
	}
	if l.Attrs().Alias != owner {
		if err := h.LinkSetAlias(l, owner); err != nil {
			return fmt.Errorf("set the alias of bridge %s: %w", name, err)
		}
	}
	for _, g := range gateways {
		if err := addAddress(h, l, g); err != nil {
			return err
		}
	}
	return nil
}

// Unclaim deletes a bridge that Claim has created. It reports false, and keeps the bridge, if the bridge has a port or
// has an address that is not a gateway of the ranges, because another network uses the bridge then. A bridge of another
// owner does not count as a bridge.
func Unclaim(name, owner string, ranges []netip.Prefix) (deleted bool, err error) {
	h, err := openNetlink()
	if err != nil {
		return false, err
	}
	defer h.Close()
	l, err := linkByName(h, name)
	if isNoLink(err) || err == nil && l.Attrs().Alias != owner {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	used, err := inUse(h, l, ranges)
	if used || err != nil {
		return false, err
	}
	if err := h.LinkDel(l); err != nil && !isNoLink(err) {
		return false, fmt.Errorf("delete bridge %s: %w", name, err)
	}
	return true, nil
}

// inUse reports whether a bridge has a port, or an address outside of the ranges.
func inUse(h *netlink.Handle, bridge netlink.Link, ranges []netip.Prefix) (bool, error) {
	all, err := links(h)
	if err != nil {
		return false, err
	}
	for _, l := range all {
		if l.Attrs().MasterIndex == bridge.Attrs().Index {
			return true, nil
		}
	}
	for _, v6 := range []bool{false, true} {
		addrs, err := addresses(h, bridge, v6)
		if err != nil {
			return false, err
		}
		for _, a := range addrs {
			if !a.Addr().IsLinkLocalUnicast() && !containsAddr(ranges, a.Addr()) {
				return true, nil
			}
		}
	}
	return false, nil
}

func containsAddr(ranges []netip.Prefix, a netip.Addr) bool {
	for _, r := range ranges {
		if r.Contains(a) {
			return true
		}
	}
	return false
}
