package podfiles

import (
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

func TestResolvConf(t *testing.T) {
	got, err := NewResolvConf(&types.DNS{
		Nameservers: []string{"10.96.0.10", "fd00::10"}, Search: []string{"a.svc", "b"}, Options: []string{"ndots:5", "edns0"},
	})
	const want = "search a.svc b\nnameserver 10.96.0.10\nnameserver fd00::10\noptions ndots:5 edns0\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	got, err = NewResolvConf(&types.DNS{Nameservers: []string{"", "1.1.1.1"}, Search: []string{"."}})
	if err != nil || string(got) != "search .\nnameserver 1.1.1.1\n" {
		t.Errorf("empty server: got %q, %v", got, err)
	}
	host, err := readHostFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := NewResolvConf(nil); err != nil || string(got) != string(host) {
		t.Errorf("no DNS config: got %q, %v", got, err)
	}
	if got, err := NewResolvConf(&types.DNS{}); err != nil || len(got) != 0 {
		t.Errorf("empty DNS config: got %q, %v", got, err)
	}
}

func TestHosts(t *testing.T) {
	ips := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}
	for name, want := range map[string]string{
		"a":           "10.0.0.2\ta\nfd00::2\ta\n",
		"a.b.example": "10.0.0.2\ta.b.example\ta\nfd00::2\ta.b.example\ta\n",
		"a.ns.svc.":   "10.0.0.2\ta.ns.svc\ta.ns.svc.\ta\nfd00::2\ta.ns.svc\ta.ns.svc.\ta\n",
		"a.":          "10.0.0.2\ta\ta.\nfd00::2\ta\ta.\n",
		".":           "10.0.0.2\t.\nfd00::2\t.\n",
	} {
		if got := string(hosts(ips, name)); got != LocalHosts+want {
			t.Errorf("host name %q: got %q", name, got)
		}
	}
}

func TestShmOptions(t *testing.T) {
	for label, want := range map[string]string{
		"":               "mode=1777,size=64,uid=1,gid=2",
		"u:r:t:s0:c1,c2": `mode=1777,size=64,uid=1,gid=2,context="u:r:t:s0:c1,c2"`,
	} {
		if got := shmOptions(64, 1, 2, label); got != want {
			t.Errorf("label %q: got %s, want %s", label, got, want)
		}
	}
}
