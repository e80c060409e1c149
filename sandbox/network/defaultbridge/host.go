package defaultbridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxListAttempts bounds the attempts to list addresses or routes while other processes change them.
const maxListAttempts = 10

// retryList calls a function that lists objects of the kernel until the list is complete.
func retryList[T any](list func() ([]T, error)) (out []T, err error) {
	for range maxListAttempts {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}

// usedPrefixes returns the prefixes of all addresses and the destinations of all routes of the host, in all tables. It
// leaves out the interface named except, default routes, and the two routes that together replace a default route.
func usedPrefixes(except string) ([]netip.Prefix, error) {
	index := 0
	if l, err := netlink.LinkByName(except); err == nil {
		index = l.Attrs().Index
	}
	addrs, err := retryList(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses of the host: %w", err)
	}
	var used []netip.Prefix
	for _, a := range addrs {
		if a.LinkIndex != index {
			used = appendPrefix(used, a.IPNet)
			used = appendPrefix(used, a.Peer)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := retryList(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		})
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, fmt.Errorf("list the routes of the host: %w", err)
		}
		for _, r := range routes {
			if r.LinkIndex != index || index == 0 {
				used = appendPrefix(used, r.Dst)
			}
		}
	}
	return used, nil
}

// appendPrefix appends a prefix unless it is nil or, like 0.0.0.0/0 and 128.0.0.0/1, a default route or half of one.
func appendPrefix(to []netip.Prefix, n *net.IPNet) []netip.Prefix {
	if n == nil {
		return to
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if addr = addr.Unmap(); !ok || bits <= 1 || size != addr.BitLen() {
		return to
	}
	return append(to, netip.PrefixFrom(addr, bits).Masked())
}

// hasIPv6 reports whether the kernel supports IPv6 and the host has not disabled it.
func hasIPv6() bool { return readSysctl("all/disable_ipv6") == "0" }

// readSysctl returns a sysctl of IPv6, or "" if it does not exist.
func readSysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// needsAdvertisements reports whether the host has a default route from router advertisements that the kernel
// processes. The kernel ignores advertisements when the host forwards IPv6, unless accept_ra is 2. The forwarding that
// pods need would therefore cut the host off.
func needsAdvertisements() (bool, error) {
	if readSysctl("all/forwarding") != "0" {
		return false, nil
	}
	routes, err := retryList(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V6) })
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return false, fmt.Errorf("list the routes of the host: %w", err)
	}
	for _, r := range routes {
		isDefault := r.Dst == nil || r.Dst.IP.IsUnspecified()
		if !isDefault || r.Protocol != unix.RTPROT_RA && r.Protocol != unix.RTPROT_KERNEL {
			continue
		}
		l, err := netlink.LinkByIndex(r.LinkIndex)
		if err == nil && readSysctl(l.Attrs().Name+"/accept_ra") == "1" {
			return true, nil
		}
	}
	return false, nil
}
