package sandbox

import (
	"net/netip"
	"slices"
	"testing"
)

// TestFamilyOrder checks which address is the primary address, and that the others keep their order.
func TestFamilyOrder(t *testing.T) {
	addrs := func(list ...string) (out []netip.Addr) {
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	both := addrs("fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2")
	for name, tc := range map[string]struct {
		family    Family
		has, want []netip.Addr
	}{
		"any":            {AnyFamily, both, both},
		"IPv4":           {IPv4, both, addrs("10.0.0.1", "fd00::1", "fd00::2", "10.0.0.2")},
		"IPv6":           {IPv6, both, both},
		"IPv6, second":   {IPv6, addrs("10.0.0.1", "fd00::1"), addrs("fd00::1", "10.0.0.1")},
		"IPv4 is absent": {IPv4, addrs("fd00::1", "fd00::2"), addrs("fd00::1", "fd00::2")},
		"no address":     {IPv6, nil, nil},
	} {
		before := slices.Clone(tc.has)
		if got := tc.family.order(tc.has); !slices.Equal(got, tc.want) || !slices.Equal(tc.has, before) {
			t.Errorf("%s: got %v of %v, want %v", name, got, tc.has, tc.want)
		}
	}
}
