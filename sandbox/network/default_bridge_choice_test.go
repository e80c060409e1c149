package network

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// overlap reports whether ranges of two lists overlap.
func overlap(a, b []netip.Prefix) bool {
	return slices.ContainsFunc(a, func(p netip.Prefix) bool { return slices.ContainsFunc(b, p.Overlaps) })
}

// TestDefaultBridgesOfTwoDaemons checks that two daemons have different bridges, ranges and networks, before the first
// pod and after a restart.
func TestDefaultBridgesOfTwoDaemons(t *testing.T) {
	a, _ := newBare(t)
	b, _ := newBare(t)
	first, second := reload(t, a), reload(t, b)
	if first.Bridge == second.Bridge || first.Network() == second.Network() || overlap(first.Ranges, second.Ranges) {
		t.Errorf("got %+v and %+v", first, second)
	}
	if again := reload(t, restarted(b)); again.Bridge != second.Bridge || !slices.Equal(again.Ranges, second.Ranges) {
		t.Errorf("after a restart: got %+v, want %+v", again, second)
	}
}

// TestDefaultBridgeAvoidsHost checks that the range does not overlap a route of the host, and that a daemon without
// pods chooses again when a route overlaps the recorded range.
func TestDefaultBridgeAvoidsHost(t *testing.T) {
	n, _ := newBare(t)
	first := reload(t, n)
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	dst := net.IPNet{IP: first.Ranges[0].Addr().AsSlice(), Mask: net.CIDRMask(24, 32)}
	route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: &dst, Table: 200} // a table of policy routing
	if err := netlink.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netlink.RouteDel(route) }()
	second := reload(t, restarted(n))
	if second.Bridge != first.Bridge || second.Ranges[0].Overlaps(first.Ranges[0]) {
		t.Errorf("got %+v after %+v", second, first)
	}
	addrs, err := netlink.AddrList(mustLink(t, second.Bridge), netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 || !second.Ranges[0].Contains(netip.AddrFrom4([4]byte(addrs[0].IP.To4()))) {
		t.Errorf("addresses of the bridge: %v, %v", addrs, err)
	}

	// While a pod uses the ranges, they stay.
	n = restarted(n)
	if again := reload(t, n); !slices.Equal(again.Ranges, second.Ranges) {
		t.Fatalf("got %+v, want %+v", again, second)
	}
	answerStatus(t, n)
	pod := Pod{ID: "pod", NetNS: makeNetNS(t)}
	i, _ := attachPod(t, n, pod)
	dst2 := net.IPNet{IP: second.Ranges[0].Addr().AsSlice(), Mask: net.CIDRMask(24, 32)}
	route2 := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: &dst2, Table: 200}
	if err := netlink.RouteAdd(route2); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netlink.RouteDel(route2) }()
	n = restarted(n)
	n.RestoreAttachments(pod.ID, i)
	if again := reload(t, n); !slices.Equal(again.Ranges, second.Ranges) {
		t.Errorf("while a pod is attached: got %+v, want %+v", again, second)
	}
	if err := n.Detach(t.Context(), pod, i); err != nil {
		t.Error(err)
	}
}

func mustLink(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestDefaultBridgeUsesPodCIDR checks that the default bridge uses the range of the kubelet, also after a restart, and
// that a range without room for pods is not used.
func TestDefaultBridgeUsesPodCIDR(t *testing.T) {
	n, _ := newBare(t)
	first := reload(t, n)
	if err := n.SetPodCIDR(t.Context(), "10.64.3.0/31"); err != nil {
		t.Fatal(err)
	}
	if got := reload(t, n); !slices.Equal(got.Ranges, first.Ranges) {
		t.Errorf("range of two addresses: got %+v, want %+v", got, first)
	}
	if err := n.SetPodCIDR(t.Context(), "10.64.3.0/24"); err != nil {
		t.Fatal(err)
	}
	if len(n.reloadRequests) == 0 {
		t.Error("SetPodCIDR does not request a reload")
	}
	want := prefixes("10.64.3.0/24")
	for range 2 {
		if got := reload(t, n); got.Bridge != first.Bridge || !slices.Equal(got.Ranges, want) {
			t.Errorf("got %+v, want %v", got, want)
		}
		n = restarted(n)
	}
	// The range that the kubelet has sent first is not chosen when it cannot be used.
	other, _ := newBare(t)
	if err := other.SetPodCIDR(t.Context(), "10.89.0.0/31"); err != nil {
		t.Fatal(err)
	}
	if got := reload(t, other); overlap(got.Ranges, prefixes("10.89.0.0/31")) {
		t.Errorf("got %+v, which overlaps the pod CIDR", got)
	}
}

// TestInvalidBridgeRecord checks that an invalid record does not leave new pods without a network, and that the bridge
// of the record, which running pods may use, is not changed.
func TestInvalidBridgeRecord(t *testing.T) {
	n, _ := newBare(t)
	first := reload(t, n)
	for _, content := range []string{"{", `{"bridge":"cri0"}`} {
		writeFile(t, n.defaultBridge.Dir(), "bridge.json", content)
		next := reload(t, restarted(n))
		if next.Bridge == first.Bridge || overlap(next.Ranges, first.Ranges) {
			t.Errorf("record %s: got %+v, want another bridge than %+v", content, next, first)
		}
		mustLink(t, first.Bridge)
	}
}

// TestDefaultBridgeKeepsIPv6OfHost checks that the default bridge has no IPv6 range on a host that needs the router
// advertisements which its kernel would ignore as soon as the host forwards IPv6.
func TestDefaultBridgeKeepsIPv6OfHost(t *testing.T) {
	n, _ := newBare(t)
	if b, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6"); err != nil || string(b) != "0\n" {
		t.Skip("the host has no IPv6")
	}
	uplink := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "criuplink0"}, PeerName: "criuplink1"}
	if err := netlink.LinkAdd(uplink); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netlink.LinkDel(uplink) }()
	write := func(name, value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("all/forwarding", "0")
	write("criuplink0/accept_ra", "1")
	for _, name := range []string{"criuplink0", "criuplink1"} {
		if err := netlink.LinkSetUp(mustLink(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	route := exec.Command("ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "criuplink0", "proto", "ra")
	if out, err := route.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if b := reload(t, n); len(b.Ranges) != 1 {
		t.Errorf("got the ranges %v, want an IPv4 range", b.Ranges)
	}
	write("criuplink0/accept_ra", "2")
	other, _ := newBare(t)
	if b := reload(t, other); len(b.Ranges) != 2 {
		t.Errorf("accept_ra 2: got the ranges %v, want one of each family", b.Ranges)
	}
}

// TestPodCIDROverlapsRangeInUse sends a pod CIDR that overlaps the range of an attached pod with another gateway. New
// pods must get addresses of the old range, and of the pod CIDR after the last pod has been removed.
func TestPodCIDROverlapsRangeInUse(t *testing.T) {
	n, _ := newBare(t)
	first := reload(t, n)
	answerStatus(t, n)
	pod := Pod{ID: "pod", NetNS: makeNetNS(t)}
	i, _ := attachPod(t, n, pod)
	cidr := netip.PrefixFrom(first.Ranges[0].Addr(), 24)
	if err := n.SetPodCIDR(t.Context(), cidr.String()); err != nil {
		t.Fatal(err)
	}
	if got := reload(t, n); !slices.Equal(got.Ranges, first.Ranges) {
		t.Errorf("while a pod is attached: got %+v, want %+v", got, first)
	}
	second := Pod{ID: "second", NetNS: makeNetNS(t)}
	j, _ := attachPod(t, n, second)
	<-n.reloadRequests
	for _, err := range []error{n.Detach(t.Context(), second, j), n.Detach(t.Context(), pod, i)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(n.reloadRequests) == 0 {
		t.Error("DEL of the last pod does not request a reload")
	}
	if got := reload(t, n); !slices.Equal(got.Ranges, []netip.Prefix{cidr}) {
		t.Errorf("without pods: got %+v, want %s", got, cidr)
	}
	answerStatus(t, n)
	third := Pod{ID: "third", NetNS: makeNetNS(t)}
	k, res := attachPod(t, n, third)
	if len(res.IPs) != 1 || !cidr.Contains(res.IPs[0]) {
		t.Errorf("got the addresses %v, want one of %s", res.IPs, cidr)
	}
	if err := n.Detach(t.Context(), third, k); err != nil {
		t.Error(err)
	}
}

// TestRunLoadsDefaultBridge checks that Run makes the default bridge ready, changes its range when the kubelet sends a
// pod CIDR, and uses a CNI file as soon as the file exists.
func TestRunLoadsDefaultBridge(t *testing.T) {
	n, confDir := newBare(t)
	t.Cleanup(func() { removeBridge("cri0") })
	runNetwork(t, n)
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: bridge %+v, status %v", what, n.DefaultBridge(), n.Status())
			}
		}
	}
	await("default bridge", func() bool { return n.DefaultBridge() != nil && n.Status() == nil })
	if err := n.SetPodCIDR(t.Context(), "10.64.4.0/24"); err != nil {
		t.Fatal(err)
	}
	await("pod CIDR", func() bool {
		b := n.DefaultBridge()
		return b != nil && slices.Equal(b.Ranges, prefixes("10.64.4.0/24")) && n.Status() == nil
	})
	writeFile(t, confDir, "10-none.conflist", `{"cniVersion":"1.0.0","name":"none","plugins":[{"type":"missing"}]}`)
	await("CNI file", func() bool { return n.DefaultBridge() == nil && n.Status() != nil })
	if err := os.Remove(filepath.Join(confDir, "10-none.conflist")); err != nil {
		t.Fatal(err)
	}
	await("default bridge without the file", func() bool { return n.DefaultBridge() != nil && n.Status() == nil })
}
