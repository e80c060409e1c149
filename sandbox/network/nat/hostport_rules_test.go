package nat

import (
	"net/netip"
	"slices"
	"testing"
)

func TestElements(t *testing.T) {
	both := []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")}
	table := portTable{pods: map[string]PodPorts{
		"a": {Addrs: both, Mappings: []PortMapping{
			{80, 8080, "tcp", ""},
			{81, 8081, "tcp", "192.0.2.1"},
			{82, 8082, "sctp", "2001:db8::1"},
			{83, 8083, "tcp", "0.0.0.0"},
			{84, 8084, "tcp", "::"},
			{85, 8085, "tcp", "::ffff:192.0.2.1"},
		}},
		// The host port 80 of two pods, which the sandbox package prevents, must not affect the other host ports.
		"b": {[]netip.Prefix{netip.MustParsePrefix("10.0.0.3/24")}, []PortMapping{{80, 9, "tcp", ""}, {90, 9, "tcp", "2001:db8::1"}}},
	}}
	v4, v6 := &family{name: "ip"}, &family{name: "ip6"}
	ports := table.elements(v4, v6)
	for name, tt := range map[string]struct{ got, want []string }{
		"ports": {ports, []string{"tcp . 80", "tcp . 81", "tcp . 83", "tcp . 85", "sctp . 82", "tcp . 84"}},
		"all 4": {v4.all, []string{`tcp . 80 comment "pod a" : 10.0.0.2 . 8080`, `tcp . 83 comment "pod a" : 10.0.0.2 . 8083`}},
		"one 4": {v4.one, []string{`tcp . 192.0.2.1 . 81 comment "pod a" : 10.0.0.2 . 8081`, `tcp . 192.0.2.1 . 85 comment "pod a" : 10.0.0.2 . 8085`}},
		"all 6": {v6.all, []string{`tcp . 80 comment "pod a" : fd00::2 . 8080`, `tcp . 84 comment "pod a" : fd00::2 . 8084`}},
		"one 6": {v6.one, []string{`sctp . 2001:db8::1 . 82 comment "pod a" : fd00::2 . 8082`}},
		"net 4": {v4.subnets, []string{"10.0.0.0/24"}},
		"net 6": {v6.subnets, []string{"fd00::/64"}},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", name, tt.got, tt.want)
		}
	}
}
