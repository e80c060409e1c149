package bridge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// add attaches a pod. If add fails, it frees the addresses if it can, and the caller runs DEL to undo the rest.
func (p *Plugin) add(ctx context.Context, c *conf, call Call) ([]byte, error) {
	h, err := openNetlink()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	bridge, err := ensureBridge(h, c.Bridge, c.MTU)
	if err != nil {
		return nil, err
	}
	leases, err := p.reserve(ctx, c, call.ContainerID, call.IfName)
	if err != nil {
		return nil, fmt.Errorf("reserve addresses: %w", err)
	}
	if c.IsGateway || c.IsDefaultGateway {
		if err := ensureGateways(h, bridge, leases); err != nil {
			return nil, errors.Join(err, p.free(ctx, c, call, leases))
		}
	}
	a := &attachment{conf: c, call: call, netlink: h, bridge: bridge, leases: leases, hostName: newVethName(), mac: newMAC()}
	out, err := a.attach(ctx)
	if err != nil {
		return nil, errors.Join(err, p.free(ctx, c, call, leases))
	}
	return out, nil
}

// newMAC returns a random locally administered unicast address.
func newMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // crypto/rand.Read never fails
	mac[0] = mac[0]&^1 | 2
	return mac
}

func newVethName() string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return "veth" + hex.EncodeToString(b[:])
}

// attachment is the connection of a pod to the bridge by a veth pair.
type attachment struct {
	conf     *conf
	call     Call
	netlink  *netlink.Handle // in the network namespace of the host
	bridge   netlink.Link
	leases   []lease
	hostName string           // the name of the interface of the host
	mac      net.HardwareAddr // of the interface of the pod
}

// attach creates the veth pair, configures both interfaces and returns the CNI result.
func (a *attachment) attach(ctx context.Context) ([]byte, error) {
	l, err := a.addVeth()
	if err != nil {
		return nil, err
	}
	if err := namespace.RunInNet(a.call.NetNS, a.configurePod); err != nil {
		return nil, err
	}
	if err := a.netlink.LinkSetMasterByIndex(l, a.bridge.Attrs().Index); err != nil {
		return nil, fmt.Errorf("add interface %s to bridge %s: %w", a.hostName, a.conf.Bridge, err)
	}
	if a.conf.HairpinMode {
		if err := a.netlink.LinkSetHairpin(l, true); err != nil {
			return nil, fmt.Errorf("set hairpin mode of bridge port %s: %w", a.hostName, err)
		}
	}
	// The interface of the host comes up last. The interface of the pod is up then, so the bridge forwards frames at
	// once. Otherwise the bridge would wait until the kernel looks at the link again.
	if err := a.netlink.LinkSetUp(l); err != nil {
		return nil, fmt.Errorf("bring up interface %s: %w", a.hostName, err)
	}
	if l, err = waitUntilUp(ctx, a.netlink, a.hostName); err != nil {
		return nil, err
	}
	return a.result(l.Attrs().HardwareAddr)
}

// addVeth adds a veth pair with one interface on the host and the other in the pod. Both are down.
func (a *attachment) addVeth() (netlink.Link, error) {
	ns, err := os.Open(a.call.NetNS)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = a.hostName, a.conf.MTU
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace = a.call.IfName, a.mac, netlink.NsFd(ns.Fd())
	if err := a.netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("add veth pair %s, %s: %w", a.hostName, a.call.IfName, err)
	}
	return veth, nil
}

// configurePod configures the interface of the pod. It runs on a thread in the network namespace of the pod.
func (a *attachment) configurePod() error {
	h, err := openNetlink()
	if err != nil {
		return err
	}
	defer h.Close()
	name := a.call.IfName
	l, err := linkByName(h, name)
	if err != nil {
		return err
	}
	// No duplicate address detection. A kernel without IPv6 does not have the sysctl.
	err = namespace.Sysctl{Path: "net/ipv6/conf/" + name + "/accept_dad", Value: "0"}.Ensure()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, sc := range a.sysctls() {
		if err := sc.Ensure(); err != nil {
			return err
		}
	}
	for _, le := range a.leases {
		if err := addAddress(h, l, le.addr); err != nil {
			return err
		}
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("bring up interface %s: %w", name, err)
	}
	return a.addRoutes(h, l.Attrs().Index)
}

// sysctls returns the settings that the interface of the pod needs for its addresses.
func (a *attachment) sysctls() []namespace.Sysctl {
	v4, v6 := "net/ipv4/conf/"+a.call.IfName, "net/ipv6/conf/"+a.call.IfName
	out := []namespace.Sysctl{{Path: v4 + "/arp_notify", Value: "1"}}
	if slices.ContainsFunc(a.leases, func(l lease) bool { return l.addr.Addr().Is6() }) {
		out = append(out,
			namespace.Sysctl{Path: "net/ipv6/conf/lo/disable_ipv6", Value: "0"},
			namespace.Sysctl{Path: v6 + "/disable_ipv6", Value: "0"},
			namespace.Sysctl{Path: v6 + "/keep_addr_on_down", Value: "1"},
		)
	}
	return out
}

// addRoutes adds the routes in the order of the configuration, which may have several routes to one destination. The
// kernel uses the last of several IPv4 routes and all of several IPv6 routes. An identical route is no error, because
// isDefaultGateway may repeat a configured route.
func (a *attachment) addRoutes(h *netlink.Handle, index int) error {
	for _, r := range a.routes() {
		gateway := r.GW
		if !gateway.IsValid() {
			gateway = a.gateway(r.Dst)
		}
		dst := ipNet(r.Dst.Masked())
		// RouteAddEcmp adds a route beside routes to the same destination; RouteAdd would fail.
		err := h.RouteAddEcmp(&netlink.Route{LinkIndex: index, Dst: &dst, Gw: gateway.AsSlice()})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add route to %s: %w", r.Dst, err)
		}
	}
	return nil
}

// gateway returns the first gateway of the family of a destination. It returns the zero value if the family has no
// gateway; the destination is then reached on the link.
func (a *attachment) gateway(dst netip.Prefix) netip.Addr {
	for _, l := range a.leases {
		if l.gateway.Is4() == dst.Addr().Is4() {
			return l.gateway
		}
	}
	return netip.Addr{}
}

// routes returns the configured routes. With isDefaultGateway it adds a default route for each address, unless the
// configuration has a default route with a gateway for the family.
func (a *attachment) routes() []route {
	out := slices.Clone(a.conf.IPAM.Routes)
	if !a.conf.IsDefaultGateway {
		return out
	}
	for _, l := range a.leases {
		dst := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if l.gateway.Is6() {
			dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if !slices.ContainsFunc(out, func(r route) bool { return r.Dst == dst && r.GW.IsValid() }) {
			out = append(out, route{dst, l.gateway})
		}
	}
	return out
}

// Positions of the interfaces in a result.
const (
	hostInterface = 1
	podInterface  = 2
)

// result returns the CNI result in the version of the configuration.
func (a *attachment) result(hostMAC net.HardwareAddr) ([]byte, error) {
	res := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{
			{Name: a.conf.Bridge, Mac: a.bridge.Attrs().HardwareAddr.String()},
			hostInterface: {Name: a.hostName, Mac: hostMAC.String()},
			podInterface:  {Name: a.call.IfName, Mac: a.mac.String(), Sandbox: a.call.NetNS},
		},
	}
	for _, l := range a.leases {
		res.IPs = append(res.IPs, &types100.IPConfig{
			Interface: types100.Int(podInterface), Address: ipNet(l.addr), Gateway: l.gateway.AsSlice(),
		})
	}
	for _, r := range a.routes() {
		res.Routes = append(res.Routes, &types.Route{Dst: ipNet(r.Dst), GW: r.GW.AsSlice()})
	}
	versioned, err := res.GetAsVersion(a.conf.CNIVersion)
	if err != nil {
		return nil, err
	}
	return json.Marshal(versioned)
}
