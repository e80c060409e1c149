package nat

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUDPFlows(t *testing.T) {
	u := &udpFlows{
		ports: map[uint16]bool{53: true},
		host:  []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		pod:   []netip.Addr{netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("fd00::2")},
	}
	for name, tt := range map[string]struct {
		protocol     uint8
		dst, answers string
		port         uint16
		want         bool
	}{
		"to the pod":                  {unix.IPPROTO_UDP, "192.0.2.1", "10.88.0.2", 53, true},
		"to the pod over IPv6":        {unix.IPPROTO_UDP, "2001:db8::1", "fd00::2", 53, true},
		"to another pod":              {unix.IPPROTO_UDP, "192.0.2.1", "10.88.0.9", 53, true},
		"to the host itself":          {unix.IPPROTO_UDP, "192.0.2.1", "192.0.2.1", 53, true},
		"to loopback":                 {unix.IPPROTO_UDP, "127.0.0.3", "10.88.0.9", 53, true},
		"to a removed host address":   {unix.IPPROTO_UDP, "192.0.2.7", "10.88.0.2", 53, true},
		"query to a server elsewhere": {unix.IPPROTO_UDP, "198.51.100.1", "198.51.100.1", 53, false},
		"query to a service":          {unix.IPPROTO_UDP, "10.96.0.10", "10.88.0.9", 53, false},
		"another port":                {unix.IPPROTO_UDP, "192.0.2.1", "10.88.0.2", 54, false},
		"another protocol":            {unix.IPPROTO_TCP, "192.0.2.1", "10.88.0.2", 53, false},
	} {
		f := flow{protocol: tt.protocol, dst: netip.MustParseAddr(tt.dst), port: tt.port, answers: netip.MustParseAddr(tt.answers)}
		if got := u.match(f); got != tt.want {
			t.Errorf("%s: got %t, want %t", name, got, tt.want)
		}
	}
}

func FuzzParseFlow(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 20, 0, 1, 0x80, 16, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseFlow(b) })
}
