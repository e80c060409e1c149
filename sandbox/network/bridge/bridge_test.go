package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

const plain = `{"cniVersion":"1.1.0","name":"n","type":"bridge","bridge":"br0","isGateway":true,"ipMasq":false,"hairpinMode":true,
	"ipam":{"type":"host-local","dataDir":"/d","ranges":[[{"subnet":"10.0.0.0/29"}],[{"subnet":"fd00::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`

func TestParse(t *testing.T) {
	for name, tt := range map[string]struct {
		old, replacement string
		handled, add     bool
	}{
		"plain":           {"", "", true, true},
		"one subnet":      {`"ranges":[[{"subnet":"10.0.0.0/29"}],[{"subnet":"fd00::/64"}]]`, `"subnet":"10.0.0.0/24","gateway":"10.0.0.254"`, true, true},
		"previous result": {`"name"`, `"prevResult":{"ips":[]},"name"`, true, true},
		"GC":              {`"name"`, `"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],"name"`, true, true},

		"masquerading":    {`"ipMasq":false`, `"ipMasq":true`, false, false},
		"VLAN":            {`"name"`, `"vlan":5,"name"`, false, false},
		"capability":      {`"name"`, `"runtimeConfig":{"mac":"02:00:00:00:00:01"},"name"`, false, false},
		"unknown option":  {`"name"`, `"x":1,"name"`, false, false},
		"route option":    {`{"dst":"0.0.0.0/0"}`, `{"dst":"0.0.0.0/0","mtu":1400}`, false, false},
		"another plugin":  {`"bridge"`, `"ptp"`, false, false},
		"another IPAM":    {"host-local", "dhcp", false, false},
		"path as a name":  {`"name":"n"`, `"name":"../n"`, false, false},
		"invalid address": {"10.0.0.0/29", "ten", false, false},
		"invalid JSON":    {plain, "{", false, false},

		// host-local refuses these ranges. The plugin runs for ADD and returns the error; leases can still be freed.
		"host bits in the subnet":     {"10.0.0.0/29", "10.0.0.1/29", true, false},
		"subnet too small":            {"10.0.0.0/29", "10.0.0.0/31", true, false},
		"range starts outside":        {`"10.0.0.0/29"`, `"10.0.0.0/29","rangeStart":"10.0.1.0"`, true, false},
		"range ends before it starts": {`"10.0.0.0/29"`, `"10.0.0.0/29","rangeStart":"10.0.0.4","rangeEnd":"10.0.0.3"`, true, false},
		"gateway outside the subnet":  {`"10.0.0.0/29"`, `"10.0.0.0/29","gateway":"10.0.1.1"`, true, false},
		"empty set":                   {`[{"subnet":"fd00::/64"}]`, `[]`, true, false},
		"no ranges":                   {`"ranges":[[{"subnet":"10.0.0.0/29"}],[{"subnet":"fd00::/64"}]],`, "", true, false},
		"overlapping ranges in a set": {`[{"subnet":"fd00::/64"}]`, `[{"subnet":"10.1.0.0/24"},{"subnet":"10.1.0.128/25"}]`, true, false},
		"overlapping sets":            {`[{"subnet":"fd00::/64"}]`, `[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.6"}]`, true, false},
		"two families in a set":       {`[{"subnet":"fd00::/64"}]`, `[{"subnet":"10.1.0.0/24"},{"subnet":"fd00::/64"}]`, true, false},
		"two parts of a subnet":       {`[{"subnet":"fd00::/64"}]`, `[{"subnet":"10.1.0.0/24","rangeEnd":"10.1.0.9"},{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.10"}]`, true, true},
	} {
		if !strings.Contains(plain, tt.old) {
			t.Fatalf("%s: the configuration does not contain %q", name, tt.old)
		}
		text := strings.Replace(strings.Replace(plain, tt.old, tt.replacement, 1), `"/d"`, fmt.Sprintf("%q", t.TempDir()), 1)
		c := parse([]byte(text))
		if (c != nil) != tt.handled || c != nil && (c.ranges != nil) != tt.add {
			t.Errorf("%s: got %+v, want handled %t, ADD %t", name, c, tt.handled, tt.add)
		}
		var p Plugin
		if !tt.add { // the other ADDs would create a bridge on the host
			if _, handled, err := p.Run(t.Context(), Call{Command: "ADD", Stdin: []byte(text)}); handled || err != nil {
				t.Errorf("%s: ADD: handled %t, %v", name, handled, err)
			}
		}
		if _, handled, err := p.Run(t.Context(), Call{Command: "DEL", Stdin: []byte(text)}); handled != tt.handled || err != nil {
			t.Errorf("%s: DEL: handled %t, %v", name, handled, err)
		}
	}
}

// testConf returns a configuration with a lease directory of the test.
func testConf(t *testing.T) *conf {
	t.Helper()
	c := parse([]byte(strings.Replace(plain, `"/d"`, fmt.Sprintf("%q", t.TempDir()), 1)))
	if c == nil {
		t.Fatal("the package does not handle the configuration")
	}
	return c
}

func reserve(t *testing.T, c *conf, pod string) ([]lease, error) {
	t.Helper()
	return (&Plugin{}).reserve(t.Context(), c, pod, "eth0")
}

func addrs(leases []lease) string {
	var out []string
	for _, l := range leases {
		out = append(out, l.addr.String())
	}
	return strings.Join(out, " ")
}

// TestReserveRoundRobin checks that freed addresses are leased again only after all other addresses.
func TestReserveRoundRobin(t *testing.T) {
	c := testConf(t)
	var got []string
	for i := range 5 { // 10.0.0.1 is the gateway and 10.0.0.7 the broadcast address
		leases, err := reserve(t, c, fmt.Sprint("pod", i))
		if err != nil {
			t.Fatal(err)
		}
		if leases[0].gateway != netip.MustParseAddr("10.0.0.1") || leases[1].gateway != netip.MustParseAddr("fd00::1") {
			t.Errorf("got the gateways %+v", leases)
		}
		got = append(got, addrs(leases))
	}
	const want = "[10.0.0.2/29 fd00::2/64 10.0.0.3/29 fd00::3/64 10.0.0.4/29 fd00::4/64 10.0.0.5/29 fd00::5/64 10.0.0.6/29 fd00::6/64]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if _, err := reserve(t, c, "one more"); err == nil {
		t.Error("reserve leased a sixth address of a subnet with five addresses")
	}
	for _, pod := range []string{"pod0", "pod2"} {
		if err := (lockedStore{c.leaseDir()}).ReleaseByID(pod, "eth0"); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{"10.0.0.2/29", "10.0.0.4/29"} {
		if leases, err := reserve(t, c, "again"); err != nil || leases[0].addr.String() != want {
			t.Errorf("got %v, %v, want %s", leases, err, want)
		}
	}
	// The failed call must not have kept an IPv6 address. The directory has 5+5 leases, 2 last addresses and the lock.
	if files, err := os.ReadDir(string(c.leaseDir())); err != nil || len(files) != 5+5+3 {
		t.Errorf("got the files %v, %v", files, err)
	}
}

func TestReserveConcurrently(t *testing.T) {
	c := testConf(t)
	c.ranges = c.ranges[1:]
	var mu sync.Mutex
	seen := map[netip.Prefix]bool{}
	var wg sync.WaitGroup
	var shared, other Plugin // other stands for another process
	for i := range 50 {
		wg.Go(func() {
			p := &shared
			if i%5 == 0 {
				p = &other
			}
			leases, err := p.reserve(t.Context(), c, fmt.Sprint(i), "eth0")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[leases[0].addr] {
				t.Errorf("address %s was leased twice", leases[0].addr)
			}
			seen[leases[0].addr] = true
		})
	}
	wg.Wait()
}

func TestReserveFromSeveralRanges(t *testing.T) {
	text := strings.Replace(plain, `[{"subnet":"10.0.0.0/29"}],[{"subnet":"fd00::/64"}]`,
		`[{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.9","rangeEnd":"10.1.0.9"},{"subnet":"10.2.0.0/24","rangeStart":"10.2.0.9","rangeEnd":"10.2.0.9"}]`, 1)
	c := parse([]byte(strings.Replace(text, `"/d"`, fmt.Sprintf("%q", t.TempDir()), 1)))
	for _, want := range []string{"10.1.0.9/24", "10.2.0.9/24"} {
		if leases, err := reserve(t, c, "x"); err != nil || addrs(leases) != want {
			t.Errorf("got %v, %v, want %s", leases, err, want)
		}
	}
	if leases, err := reserve(t, c, "x"); err == nil {
		t.Errorf("got %v from two ranges of one address each", leases)
	}
}

func TestGC(t *testing.T) {
	c := testConf(t)
	for _, id := range []string{"a", "b"} {
		if _, err := reserve(t, c, id); err != nil {
			t.Fatal(err)
		}
	}
	c.ValidAttachments = []types.GCAttachment{{ContainerID: "b", IfName: "eth0"}}
	if err := (&Plugin{}).gc(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{"10.0.0.2": false, "fd00::2": false, "10.0.0.3": true, "fd00::3": true} {
		if _, err := os.Stat(c.leaseDir().file(addr)); (err == nil) != want {
			t.Errorf("lease of %s exists: %t, want %t (%v)", addr, err == nil, want, err)
		}
	}
}

// TestForeignLock checks that calls end at their deadlines while another process holds the lock of the leases.
func TestForeignLock(t *testing.T) {
	c := testConf(t)
	var p Plugin
	call := Call{ContainerID: "a", IfName: "eth0"}
	if _, err := p.reserve(t.Context(), c, "a", "eth0"); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(c.leaseDir().file(lockName), os.O_RDWR, 0)
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
	if _, err := p.reserve(short(), c, "b", "eth0"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), lockName) {
		t.Errorf("reserve: %v", err)
	}
	if err := p.del(short(), c, call); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("del: %v", err)
	}
	if err := p.gc(short(), c); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("gc: %v", err)
	}
	if err := p.del(t.Context(), c, Call{ContainerID: "b", IfName: "eth0"}); err != nil {
		t.Errorf("del of a pod without an address: %v", err)
	}
	c.ValidAttachments = []types.GCAttachment{{ContainerID: "a", IfName: "eth0"}}
	if err := p.gc(t.Context(), c); err != nil {
		t.Errorf("gc without leases to free: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = f.Close() })
	if err := p.del(t.Context(), c, call); err != nil {
		t.Errorf("del after the end of the other process: %v", err)
	}
	if leases, err := c.leaseDir().all(); err != nil || len(leases) != 0 {
		t.Errorf("leases that should have been freed: %v, %v", leases, err)
	}
}

// TestDelWithIncompleteResult checks that DEL frees an address that a later plugin has removed from the result.
func TestDelWithIncompleteResult(t *testing.T) {
	c := testConf(t)
	var p Plugin
	if _, err := p.reserve(t.Context(), c, "a", "eth0"); err != nil {
		t.Fatal(err)
	}
	c.PrevResult = []byte(`{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/29"}]}`)
	if err := p.del(t.Context(), c, Call{ContainerID: "a", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if leases, err := c.leaseDir().all(); err != nil || len(leases) != 0 {
		t.Errorf("leases that should have been freed: %v, %v", leases, err)
	}
}

// TestReserveFailure checks that no lease is left if the last address cannot be written.
func TestReserveFailure(t *testing.T) {
	c := testConf(t)
	if err := os.MkdirAll(c.leaseDir().file(lastPrefix+"1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if ls, err := reserve(t, c, "a"); err == nil {
		t.Errorf("got %v, want an error", ls)
	}
	if leases, err := c.leaseDir().all(); err != nil || len(leases) != 0 {
		t.Errorf("leases that should have been freed: %v, %v", leases, err)
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
		a := &attachment{conf: c, leases: tt.leases}
		var got []string
		for _, r := range a.routes() {
			gw := r.GW
			if !gw.IsValid() {
				gw = a.gateway(r.Dst)
			}
			got = append(got, r.Dst.String(), gw.String())
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %v, want %s", name, got, tt.want)
		}
	}
}
