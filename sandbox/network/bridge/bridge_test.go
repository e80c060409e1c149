package bridge

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const plain = `{"cniVersion":"1.1.0","name":"n","type":"bridge","bridge":"br0","isGateway":true,"ipMasq":false,"hairpinMode":true,
	"ipam":{"type":"host-local","dataDir":"/d","ranges":[[{"subnet":"10.0.0.0/29"}],[{"subnet":"fd00::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`

func TestParseKnowsItsLimits(t *testing.T) {
	ok := map[string]string{
		"plain":           plain,
		"one subnet":      strings.Replace(plain, `"ranges":[[{"subnet":"10.0.0.0/29"}],[{"subnet":"fd00::/64"}]]`, `"subnet":"10.0.0.0/24","gateway":"10.0.0.254"`, 1),
		"after another":   strings.Replace(plain, `"name"`, `"prevResult":{"ips":[]},"name"`, 1),
		"to be collected": strings.Replace(plain, `"name"`, `"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],"name"`, 1),
	}
	for name, conf := range ok {
		if parse([]byte(conf)) == nil {
			t.Errorf("%s: left to the plugin", name)
		}
	}
	left := map[string]string{
		"masquerading":  strings.Replace(plain, `"ipMasq":false`, `"ipMasq":true`, 1),
		"VLAN":          strings.Replace(plain, `"name"`, `"vlan":5,"name"`, 1),
		"capability":    strings.Replace(plain, `"name"`, `"runtimeConfig":{"mac":"02:00:00:00:00:01"},"name"`, 1),
		"future field":  strings.Replace(plain, `"name"`, `"x":1,"name"`, 1),
		"other plugin":  strings.Replace(plain, `"bridge"`, `"ptp"`, 1),
		"other IPAM":    strings.Replace(plain, "host-local", "dhcp", 1),
		"host bits":     strings.Replace(plain, "10.0.0.0/29", "10.0.0.1/29", 1),
		"tiny subnet":   strings.Replace(plain, "10.0.0.0/29", "10.0.0.0/31", 1),
		"no address":    strings.Replace(plain, "10.0.0.0/29", "ten", 1),
		"start outside": strings.Replace(plain, `"10.0.0.0/29"`, `"10.0.0.0/29","rangeStart":"10.0.1.0"`, 1),
		"empty set":     strings.Replace(plain, `[{"subnet":"fd00::/64"}]`, `[]`, 1),
		"name upward":   strings.Replace(plain, `"name":"n"`, `"name":"../n"`, 1),
		"no JSON":       "{",
	}
	for name, conf := range left {
		if parse([]byte(conf)) != nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// bed returns a configuration with leases in a directory of the test's own.
func bed(t *testing.T) *conf {
	t.Helper()
	c := parse([]byte(strings.Replace(plain, `"/d"`, fmt.Sprintf("%q", t.TempDir()), 1)))
	if c == nil {
		t.Fatal("not parsed")
	}
	return c
}

func reserve(c *conf, owner string) ([]lease, error) {
	l, err := openLeases(c)
	if err != nil {
		return nil, err
	}
	defer l.free()
	return l.reserve(c.IPAM.Ranges, owner)
}

func TestAddressesGoRound(t *testing.T) {
	c := bed(t)
	var got []string
	for i := range 5 { // .1 is the gateway, .7 for broadcasts
		ls, err := reserve(c, fmt.Sprint("pod", i))
		if err != nil {
			t.Fatal(err)
		}
		if ls[0].gateway != netip.MustParseAddr("10.0.0.1") || ls[1].gateway != netip.MustParseAddr("fd00::1") {
			t.Errorf("gateways %+v", ls)
		}
		got = append(got, ls[0].addr.String()+" "+ls[1].addr.String())
	}
	const want = "[10.0.0.2/29 fd00::2/64 10.0.0.3/29 fd00::3/64 10.0.0.4/29 fd00::4/64 10.0.0.5/29 fd00::5/64 10.0.0.6/29 fd00::6/64]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v", got)
	}
	if _, err := reserve(c, "one more"); err == nil {
		t.Error("there was a sixth address")
	}
	l, err := openLeases(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range []string{"pod0", "pod2"} {
		if err := l.releaseAll(func(o string) bool { return o == pod }); err != nil {
			t.Error(err)
		}
	}
	l.free()
	for _, want := range []string{"10.0.0.2/29", "10.0.0.4/29"} {
		if ls, err := reserve(c, "again"); err != nil || ls[0].addr.String() != want {
			t.Errorf("got %v, %v, want %s", ls, err, want)
		}
	}
	// The failure above must not have kept an address of the other family.
	if ls, err := os.ReadDir(filepath.Join(c.IPAM.DataDir, "n")); err != nil || len(ls) != 5+5+3 {
		t.Errorf("files %v, %v", ls, err)
	}
}

func TestAddressesAreGivenOnce(t *testing.T) {
	c := bed(t)
	c.IPAM.Ranges = c.IPAM.Ranges[1:]
	var mu sync.Mutex
	seen := map[netip.Prefix]bool{}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			ls, err := reserve(c, fmt.Sprint(i))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[ls[0].addr] {
				t.Errorf("%s given twice", ls[0].addr)
			}
			seen[ls[0].addr] = true
		})
	}
	wg.Wait()
}

func TestSeveralRangesInASet(t *testing.T) {
	c := bed(t)
	set := []subnet{
		{Subnet: netip.MustParsePrefix("10.1.0.0/24"), RangeStart: netip.MustParseAddr("10.1.0.9"), RangeEnd: netip.MustParseAddr("10.1.0.9")},
		{Subnet: netip.MustParsePrefix("10.2.0.0/24"), RangeStart: netip.MustParseAddr("10.2.0.9"), RangeEnd: netip.MustParseAddr("10.2.0.9")},
	}
	for i := range set {
		if !set[i].complete() {
			t.Fatal("incomplete")
		}
	}
	c.IPAM.Ranges = [][]subnet{set}
	for _, want := range []string{"10.1.0.9/24", "10.2.0.9/24"} {
		if ls, err := reserve(c, "x"); err != nil || ls[0].addr.String() != want {
			t.Errorf("got %v, %v", ls, err)
		}
	}
	if _, err := reserve(c, "x"); err == nil {
		t.Error("a third address")
	}
}

func TestCollectKeepsWhatIsValid(t *testing.T) {
	c := bed(t)
	for _, id := range []string{"a", "b"} {
		if _, err := reserve(c, owner(id, "eth0")); err != nil {
			t.Fatal(err)
		}
	}
	c.ValidAttachments = []attachment{{"b", "eth0"}}
	if err := collect(c); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{"10.0.0.2": false, "fd00::2": false, "10.0.0.3": true, "fd00::3": true} {
		if _, err := os.Stat(filepath.Join(c.IPAM.DataDir, "n", addr)); (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
