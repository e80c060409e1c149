package defaultbridge

import (
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func TestChooseRanges(t *testing.T) {
	for name, tt := range map[string]struct {
		used []netip.Prefix
		ipv6 bool
		want string // the IPv4 range
		n    int    // ranges
	}{
		"free host":                {nil, true, "10.89.0.0/20", 2},
		"without IPv6":             {nil, false, "10.89.0.0/20", 1},
		"other ranges in use":      {prefixes("192.0.2.10/24", "10.88.0.0/16", "2001:db8::/64"), true, "10.89.0.0/20", 2},
		"address in the range":     {prefixes("10.89.15.255/32"), false, "10.89.16.0/20", 1},
		"range inside of a larger": {prefixes("10.89.0.0/17"), false, "10.89.128.0/20", 1},
		"whole first block":        {prefixes("10.89.0.0/16"), false, "10.192.0.0/20", 1},
		"route to 10.0.0.0/8":      {prefixes("10.0.0.0/8"), false, "172.24.0.0/20", 1},
		"last block":               {prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.128.0/18"), false, "192.168.192.0/20", 1},
		"all IPv6 in use":          {prefixes("fc00::/7"), true, "10.89.0.0/20", 1},
	} {
		got, err := chooseRanges(tt.used, tt.ipv6)
		if err != nil || len(got) != tt.n || got[0].String() != tt.want {
			t.Errorf("%s: got %v, %v, want %d ranges, first %s", name, got, err, tt.n, tt.want)
			continue
		}
		if anyOverlaps(got, tt.used) {
			t.Errorf("%s: %v overlaps %v", name, got, tt.used)
		}
		if len(got) > 1 && !netip.MustParsePrefix("fd00::/8").Contains(got[1].Addr()) {
			t.Errorf("%s: %s is not a unique local range", name, got[1])
		}
	}
	if got, err := chooseRanges(prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"), true); !errdefs.IsUnavailable(err) {
		t.Errorf("no free range: got %v, %v", got, err)
	}
}

// TestRandomULA checks that two hosts have different IPv6 ranges.
func TestRandomULA(t *testing.T) {
	if a, b := randomULA(), randomULA(); a == b || a.Bits() != 64 || a != a.Masked() {
		t.Errorf("got %s and %s", a, b)
	}
}

func TestUsableCIDRs(t *testing.T) {
	cidrs := prefixes("10.1.2.0/24", "10.1.3.0/30", "fd00:1::/64", "fd00:2::/127")
	if got := usableCIDRs(cidrs, true); len(got) != 2 || got[0] != cidrs[0] || got[1] != cidrs[2] {
		t.Errorf("with IPv6: got %v", got)
	}
	if got := usableCIDRs(cidrs, false); len(got) != 1 || got[0] != cidrs[0] {
		t.Errorf("without IPv6: got %v", got)
	}
}
