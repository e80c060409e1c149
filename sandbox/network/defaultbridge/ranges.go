package defaultbridge

import (
	"crypto/rand"
	"errors"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
)

// defaultRangeBits is the prefix length of the IPv4 range of the default bridge. The range has about 4000 addresses.
const defaultRangeBits = 20

// privateBlocks contain the IPv4 ranges that the default bridge may use, in the order of preference. The first block
// differs from 10.88.0.0/16, which the example configuration and other runtimes use.
var privateBlocks = []netip.Prefix{
	netip.MustParsePrefix("10.89.0.0/16"),
	netip.MustParsePrefix("10.192.0.0/12"),
	netip.MustParsePrefix("172.24.0.0/14"),
	netip.MustParsePrefix("192.168.128.0/17"),
}

// maxULAs bounds the attempts to find a free IPv6 range.
const maxULAs = 16

// chooseRanges returns the ranges of the default bridge: an IPv4 range and, with ipv6, an IPv6 range. No range overlaps
// a prefix in used. Without a free IPv6 range, the result has only the IPv4 range.
func chooseRanges(used []netip.Prefix, ipv6 bool) ([]netip.Prefix, error) {
	v4, ok := freeIPv4(used)
	if !ok {
		return nil, errNoRange
	}
	ranges := []netip.Prefix{v4}
	for i := 0; ipv6 && i < maxULAs; i++ {
		if v6 := randomULA(); !overlapsAny(v6, used) {
			return append(ranges, v6), nil
		}
	}
	return ranges, nil
}

var errNoRange = errors.Join(errors.New("the addresses and routes of the host overlap all ranges for the default bridge"), errdefs.ErrUnavailable)

func freeIPv4(used []netip.Prefix) (netip.Prefix, bool) {
	for _, block := range privateBlocks {
		for a := block.Addr(); block.Contains(a); a = following(a) {
			if p := netip.PrefixFrom(a, defaultRangeBits); !overlapsAny(p, used) {
				return p, true
			}
		}
	}
	return netip.Prefix{}, false
}

// following returns the first address after the range of defaultRangeBits that begins at a.
func following(a netip.Addr) netip.Addr {
	b := a.As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n += 1 << (32 - defaultRangeBits)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// randomULA returns a unique local range with a random global id (RFC 4193).
func randomULA() netip.Prefix {
	var b [16]byte
	_, _ = rand.Read(b[1:6]) // crypto/rand.Read never fails
	b[0] = 0xfd
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// overlapsAny reports whether a range overlaps one of the prefixes.
func overlapsAny(p netip.Prefix, used []netip.Prefix) bool {
	return slices.ContainsFunc(used, p.Overlaps)
}

// anyOverlaps reports whether one of the ranges overlaps one of the prefixes.
func anyOverlaps(ranges, used []netip.Prefix) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return overlapsAny(p, used) })
}

// conflict reports whether ranges of two lists overlap without being equal. The bridge cannot have both
// gateways.
func conflict(a, b []netip.Prefix) bool {
	return slices.ContainsFunc(a, func(p netip.Prefix) bool {
		return slices.ContainsFunc(b, func(q netip.Prefix) bool { return p != q && p.Overlaps(q) })
	})
}

// usableCIDRs returns the ranges of a pod CIDR with which the default bridge works: a range needs addresses for the
// bridge and for pods, and IPv6 needs the support of the kernel. The result is empty if no range is usable.
func usableCIDRs(cidrs []netip.Prefix, ipv6 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range cidrs {
		if p.Addr().BitLen()-p.Bits() >= 3 && (p.Addr().Is4() || ipv6) {
			out = append(out, p)
		}
	}
	return out
}
