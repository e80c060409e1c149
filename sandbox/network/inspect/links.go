package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netState is the state of a network namespace.
type netState struct {
	links   []netlink.Link
	byIndex map[int]netlink.Link
	addrs   map[int][]netip.Prefix // by index of the interface
	routes  []Route
}

// maxDumps bounds the attempts to list something that other processes are changing.
const maxDumps = 5

// readNetNS reads the network namespace of the calling thread.
func readNetNS() (*netState, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	if err := h.SetSocketTimeout(netlinkTimeout); err != nil {
		return nil, err
	}
	links, err := repeat(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	s := &netState{links: links, byIndex: make(map[int]netlink.Link, len(links)), addrs: make(map[int][]netip.Prefix)}
	slices.SortFunc(s.links, func(a, b netlink.Link) int { return a.Attrs().Index - b.Attrs().Index })
	for _, l := range links {
		s.byIndex[l.Attrs().Index] = l
	}
	addrs, err := repeat(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		s.addrs[a.LinkIndex] = append(s.addrs[a.LinkIndex], prefixOf(a.IPNet))
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := repeat(func() ([]netlink.Route, error) { return h.RouteList(nil, family) })
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			s.routes = append(s.routes, s.route(r, family)...)
		}
	}
	return s, nil
}

// repeat calls a function that lists objects until no other process has changed the objects during the call.
func repeat[T any](list func() (T, error)) (out T, err error) {
	for range maxDumps {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return out, err
}

// readPodNetNS reads the namespace at n.Path and sets n.Inode. It returns nil if the namespace does not exist.
func readPodNetNS(n *NetNS) (*netState, error) {
	var st unix.Stat_t
	err := unix.Stat(n.Path, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read namespace %s: %w", n.Path, err)
	case !namespace.Pinned(n.Path):
		return nil, nil // the file is there, but no namespace is mounted on it
	}
	n.Inode = st.Ino
	var named unix.Stat_t
	n.NameWrong = n.Name != "" && (unix.Stat(n.Name, &named) != nil || named.Ino != st.Ino || named.Dev != st.Dev)
	var s *netState
	err = namespace.RunInNet(n.Path, func() (err error) { s, err = readNetNS(); return err })
	if err != nil {
		return nil, fmt.Errorf("read namespace %s: %w", n.Path, err)
	}
	return s, nil
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

// route returns a route of the main table, or a route for each of its next hops. It omits routes that every IPv6
// interface has: link-local addresses and multicast.
func (s *netState) route(r netlink.Route, family int) []Route {
	out := Route{Dst: prefixOf(r.Dst), Metric: r.Priority}
	if r.Dst == nil {
		out.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if family == netlink.FAMILY_V6 {
			out.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	if out.Dst.Addr().IsLinkLocalUnicast() || out.Dst.Addr().IsMulticast() || out.Dst.Addr().IsLoopback() {
		return nil
	}
	src, _ := netip.AddrFromSlice(r.Src)
	out.Source = src.Unmap()
	hop := func(index int, gateway net.IP) Route {
		next := out
		gw, _ := netip.AddrFromSlice(gateway)
		next.Gateway = gw.Unmap()
		if l := s.byIndex[index]; l != nil {
			next.Interface = l.Attrs().Name
		}
		return next
	}
	if len(r.MultiPath) == 0 {
		return []Route{hop(r.LinkIndex, r.Gw)}
	}
	var all []Route
	for _, p := range r.MultiPath {
		all = append(all, hop(p.LinkIndex, p.Gw))
	}
	return all
}

// link returns an interface of the namespace.
func (s *netState) link(l netlink.Link) Link {
	a := l.Attrs()
	out := Link{
		Name: a.Name, Index: a.Index, Type: l.Type(), MAC: a.HardwareAddr.String(), MTU: a.MTU,
		Up: a.Flags&net.FlagUp != 0, State: strings.ToLower(a.OperState.String()), Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
		Addresses: s.addrs[a.Index],
	}
	if out.Type == "device" {
		out.Type = "ether"
	}
	if a.Flags&net.FlagLoopback != 0 {
		out.Type, out.MAC = "loopback", ""
	}
	if c := a.Statistics; c != nil {
		out.Counters = Counters{c.RxBytes, c.RxPackets, c.RxErrors, c.RxDropped, c.TxBytes, c.TxPackets, c.TxErrors, c.TxDropped}
	}
	return out
}

// byName returns an interface, or nil.
func (s *netState) byName(name string) netlink.Link {
	for _, l := range s.links {
		if l.Attrs().Name == name {
			return l
		}
	}
	return nil
}

// hostOf returns the state of the host.
func hostOf(s *netState) Host {
	h := Host{
		Forwarding4: sysctl("net/ipv4/ip_forward"),
		Forwarding6: sysctl("net/ipv6/conf/all/forwarding"),
		BridgeNF4:   sysctl("net/bridge/bridge-nf-call-iptables"),
		BridgeNF6:   sysctl("net/bridge/bridge-nf-call-ip6tables"),
	}
	for _, r := range s.routes {
		same := func(l Link) bool { return l.Name == r.Interface }
		if l := s.byName(r.Interface); l != nil && r.Dst.Bits() == 0 && !slices.ContainsFunc(h.Uplinks, same) {
			h.Uplinks = append(h.Uplinks, s.link(l))
		}
	}
	return h
}

// sysctl returns a setting of the network namespace of the calling thread, or "" if the kernel does not have it.
func sysctl(path string) string {
	b, err := os.ReadFile("/proc/sys/" + path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return "?"
		}
		return ""
	}
	return strings.TrimSpace(string(b))
}
