package sandbox

import (
	"net/netip"
	"slices"
)

// Family is a preference for an address family.
type Family int

// The preferences for address families. AnyFamily keeps the order of the CNI result.
const (
	AnyFamily Family = iota
	IPv4
	IPv6
)

// order returns the addresses of a pod with the primary address first. The primary address is the first address of the
// family. If no address has the family, order changes nothing. The other addresses keep their order.
func (f Family) order(addrs []netip.Addr) []netip.Addr {
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return f == IPv4 && a.Is4() || f == IPv6 && a.Is6() })
	if i <= 0 {
		return addrs
	}
	return slices.Concat(addrs[i:i+1], addrs[:i], addrs[i+1:])
}
