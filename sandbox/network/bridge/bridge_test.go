package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

func reserve(t *testing.T, c *conf, owner string) ([]lease, error) {
	t.Helper()
	return (&Plugin{}).reserve(t.Context(), c, owner)
}

func TestAddressesGoRound(t *testing.T) {
	c := bed(t)
	var got []string
	for i := range 5 { // .1 is the gateway, .7 for broadcasts
		ls, err := reserve(t, c, fmt.Sprint("pod", i))
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
	if _, err := reserve(t, c, "one more"); err == nil {
		t.Error("there was a sixth address")
	}
	for _, pod := range []string{"pod0", "pod2"} {
		if err := (&Plugin{}).freeOthers(t.Context(), leasesOf(c), func(o string) bool { return o == pod }); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{"10.0.0.2/29", "10.0.0.4/29"} {
		if ls, err := reserve(t, c, "again"); err != nil || ls[0].addr.String() != want {
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
	var shared, other Plugin // one for the goroutines of a daemon, one for another process
	for i := range 50 {
		wg.Go(func() {
			p := &shared
			if i%5 == 0 {
				p = &other
			}
			ls, err := p.reserve(t.Context(), c, fmt.Sprint(i))
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
		if ls, err := reserve(t, c, "x"); err != nil || ls[0].addr.String() != want {
			t.Errorf("got %v, %v", ls, err)
		}
	}
	if _, err := reserve(t, c, "x"); err == nil {
		t.Error("a third address")
	}
}

func TestCollectKeepsWhatIsValid(t *testing.T) {
	c := bed(t)
	for _, id := range []string{"a", "b"} {
		if _, err := reserve(t, c, owner(id, "eth0")); err != nil {
			t.Fatal(err)
		}
	}
	c.ValidAttachments = []attachment{{"b", "eth0"}}
	if err := (&Plugin{}).collect(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{"10.0.0.2": false, "fd00::2": false, "10.0.0.3": true, "fd00::3": true} {
		if _, err := os.Stat(filepath.Join(c.IPAM.DataDir, "n", addr)); (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// TestRangesThatHostLocalRefuses checks that the plugin gets to say why it refuses an
// ADD, and that what was given out before can be freed.
func TestRangesThatHostLocalRefuses(t *testing.T) {
	const ranges = `[{"subnet":"10.0.0.0/29"}],[{"subnet":"fd00::/64"}]`
	for name, tt := range map[string]struct {
		ranges string
		sound  bool
	}{
		"disjoint":             {ranges, true},
		"parts of a subnet":    {`[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.9"},{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.10"}]`, true},
		"overlap in a set":     {`[{"subnet":"10.0.0.0/24"},{"subnet":"10.0.0.128/25"}]`, false},
		"overlap between sets": {`[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.9"}],[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9"}]`, false},
		"two families":         {`[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]`, false},
	} {
		text := strings.Replace(strings.Replace(plain, ranges, tt.ranges, 1), `"/d"`, fmt.Sprintf("%q", t.TempDir()), 1)
		c := parse([]byte(text))
		if c == nil || c.sound() != tt.sound {
			t.Errorf("%s: %+v", name, c)
		}
		var p Plugin
		if !tt.sound { // the other ADDs would make a bridge on the host
			if _, mine, err := p.Run(t.Context(), Call{Command: "ADD", Stdin: []byte(text)}); mine || err != nil {
				t.Errorf("%s: ADD: taken %t, %v", name, mine, err)
			}
		}
		if _, mine, err := p.Run(t.Context(), Call{Command: "DEL", Stdin: []byte(text)}); !mine || err != nil {
			t.Errorf("%s: DEL: taken %t, %v", name, mine, err)
		}
	}
}

// TestForeignLock has another process hold the lock of the leases.
func TestForeignLock(t *testing.T) {
	c := bed(t)
	var p Plugin
	call := Call{ContainerID: "a", IfName: "eth0"}
	if _, err := p.reserve(t.Context(), c, owner("a", "eth0")); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(leasesOf(c).dir, lockName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if _, err := p.reserve(short(), c, "b"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), lockName) {
		t.Errorf("reserve: %v", err)
	}
	if err := p.del(short(), c, call); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("del: %v", err)
	}
	if err := p.collect(short(), c); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("collect: %v", err)
	}
	if err := p.del(t.Context(), c, Call{ContainerID: "b", IfName: "eth0"}); err != nil {
		t.Errorf("del of a pod without an address: %v", err)
	}
	c.ValidAttachments = []attachment{{"a", "eth0"}}
	if err := p.collect(t.Context(), c); err != nil {
		t.Errorf("collect without remains: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = f.Close() })
	if err := p.del(t.Context(), c, call); err != nil {
		t.Errorf("del after the end of the other process: %v", err)
	}
	if left, err := leasesOf(c).all(); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestDelFreesWhatTheResultDoesNotName has a plugin after the bridge leave an address
// out of the result.
func TestDelFreesWhatTheResultDoesNotName(t *testing.T) {
	c := bed(t)
	var p Plugin
	if _, err := p.reserve(t.Context(), c, owner("a", "eth0")); err != nil {
		t.Fatal(err)
	}
	c.PrevResult = []byte(`{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/29"}]}`)
	if err := p.del(t.Context(), c, Call{ContainerID: "a", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if left, err := leasesOf(c).all(); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestReserveUndoesItself has the note of the last address fail.
func TestReserveUndoesItself(t *testing.T) {
	c := bed(t)
	if err := os.MkdirAll(leasesOf(c).lastFile(0), 0o755); err != nil {
		t.Fatal(err)
	}
	if ls, err := reserve(t, c, "a"); err == nil {
		t.Errorf("got %v", ls)
	}
	if left, err := leasesOf(c).all(); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestRoutes(t *testing.T) {
	v4, v6 := lease{addr: netip.MustParsePrefix("10.0.0.2/24"), gateway: netip.MustParseAddr("10.0.0.1")}, lease{addr: netip.MustParsePrefix("fd00::2/64"), gateway: netip.MustParseAddr("fd00::1")}
	for name, tt := range map[string]struct {
		routes    string
		isDefault bool
		leases    []lease
		want      string
	}{
		"one":                      {`[{"dst":"0.0.0.0/0"}]`, false, []lease{v4}, "[0.0.0.0/0 10.0.0.1]"},
		"equal destinations":       {`[{"dst":"10.9.0.0/16","gw":"10.0.0.8"},{"dst":"10.9.0.0/16","gw":"10.0.0.9"}]`, false, []lease{v4}, "[10.9.0.0/16 10.0.0.8 10.9.0.0/16 10.0.0.9]"},
		"no gateway of the family": {`[{"dst":"fd01::/64"}]`, false, []lease{v4}, "[fd01::/64 invalid IP]"},
		"default gateway":          {`[]`, true, []lease{v4, v6, v4}, "[0.0.0.0/0 10.0.0.1 ::/0 fd00::1]"},
		"another default gateway":  {`[{"dst":"0.0.0.0/0","gw":"10.0.0.9"}]`, true, []lease{v4, v6}, "[0.0.0.0/0 10.0.0.9 ::/0 fd00::1]"},
		"default without gateway":  {`[{"dst":"0.0.0.0/0"}]`, true, []lease{v4}, "[0.0.0.0/0 10.0.0.1 0.0.0.0/0 10.0.0.1]"},
	} {
		c := parse([]byte(strings.Replace(plain, `[{"dst":"0.0.0.0/0"}]`, tt.routes, 1)))
		if c == nil {
			t.Fatal(name)
		}
		c.IsDefaultGateway = tt.isDefault
		p := &port{conf: c, leases: tt.leases}
		var got []string
		for _, r := range p.routes() {
			gw := r.GW
			if !gw.IsValid() {
				gw = p.gateway(r.Dst)
			}
			got = append(got, r.Dst.String(), gw.String())
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %v, want %s", name, got, tt.want)
		}
	}
}
