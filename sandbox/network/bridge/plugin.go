package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/criserver/criserver/internal/oplock"
	"github.com/criserver/criserver/internal/osthread"
	"github.com/criserver/criserver/internal/rtnl"
	"golang.org/x/sys/unix"
)

// Call is one call of a plugin, as the CNI specification has it.
type Call struct {
	Command     string // CNI_COMMAND
	ContainerID string // CNI_CONTAINERID
	NetNS       string // CNI_NETNS
	IfName      string // CNI_IFNAME
	Stdin       []byte // the configuration
}

// Plugin does what the plugins do. The zero value is ready.
type Plugin struct {
	turns oplock.Locks // by directory of leases, held while leases change
}

// Run does what the plugin would and returns what it would write. It reports
// false when the call is not for it and the plugin has to be executed.
func (p *Plugin) Run(ctx context.Context, call Call) (stdout []byte, mine bool, err error) {
	c := parse(call.Stdin)
	if c == nil {
		return nil, false, nil
	}
	switch call.Command {
	case "ADD":
		if !c.sound() {
			return nil, false, nil
		}
		stdout, err = p.add(ctx, c, call)
	case "DEL":
		err = p.del(ctx, c, call)
	case "CHECK":
		err = check(c, call)
	case "GC":
		err = p.collect(ctx, c)
	case "STATUS": // there is nothing that could be missing
	default:
		return nil, false, nil
	}
	return stdout, true, err
}

// add attaches a pod. If it fails, del undoes what it did; it frees the addresses
// itself where it can.
func (p *Plugin) add(ctx context.Context, c *conf, call Call) ([]byte, error) {
	conn, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	br, err := ensureBridge(conn, c.Bridge, c.MTU)
	if err != nil {
		return nil, err
	}
	ls, err := p.reserve(ctx, c, owner(call.ContainerID, call.IfName))
	if err != nil {
		return nil, fmt.Errorf("reserve addresses: %w", err)
	}
	if c.IsGateway || c.IsDefaultGateway {
		if err := ensureGateways(conn, br, ls); err != nil {
			return nil, errors.Join(err, p.free(ctx, c, call, ls))
		}
	}
	out, err := (&port{conf: c, call: call, conn: conn, bridge: br, leases: ls, host: newVethName(), mac: newMAC()}).plug(ctx)
	if err != nil {
		return nil, errors.Join(err, p.free(ctx, c, call, ls))
	}
	return out, nil
}

func (p *Plugin) reserve(ctx context.Context, c *conf, owner string) ([]lease, error) {
	store := leasesOf(c)
	if err := os.MkdirAll(store.dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := store.lock(ctx, &p.turns)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return store.reserve(c.IPAM.Ranges, owner)
}

func (p *Plugin) free(ctx context.Context, c *conf, call Call, ls []lease) error {
	store := leasesOf(c)
	unlock, err := store.lock(ctx, &p.turns)
	if err != nil {
		return err
	}
	defer unlock()
	return store.release(ls, owner(call.ContainerID, call.IfName))
}

// port is a pod's place on the bridge in the making.
type port struct {
	conf   *conf
	call   Call
	conn   *rtnl.Conn // in the host's network namespace
	bridge rtnl.Link
	leases []lease
	host   string // name of the host's end
	mac    net.HardwareAddr
}

func (p *port) plug(ctx context.Context) ([]byte, error) {
	ns, err := os.Open(p.call.NetNS)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	veth := rtnl.Veth{Name: p.host, Peer: p.call.IfName, PeerNS: int(ns.Fd()), MTU: p.conf.MTU, PeerAddr: p.mac}
	if err := p.conn.AddVeth(veth); err != nil {
		return nil, err
	}
	if err := inside(ns, p.furnish); err != nil {
		return nil, err
	}
	l, err := p.conn.LinkByName(p.host)
	if err != nil {
		return nil, err
	}
	// The host's end comes up last: then the other end's carrier is there, and
	// the bridge forwards at once instead of after the kernel's next look.
	if err := p.conn.Join(l.Index, p.bridge.Index); err != nil {
		return nil, err
	}
	if p.conf.HairpinMode {
		if err := p.conn.SetHairpin(l.Index); err != nil {
			return nil, err
		}
	}
	if l, err = waitRunning(ctx, p.conn, p.host); err != nil {
		return nil, err
	}
	return p.result(l)
}

// inside runs fn on a thread in a network namespace, which ends with it.
func inside(ns *os.File, fn func() error) error {
	return osthread.Run(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", ns.Name(), err)
		}
		return fn()
	})
}

// furnish sets up the pod's end.
func (p *port) furnish() error {
	conn, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	l, err := conn.LinkByName(p.call.IfName)
	if err != nil {
		return err
	}
	name := p.call.IfName
	settings := [][2]string{{"net/ipv4/conf/" + name + "/arp_notify", "1"}}
	if slices.ContainsFunc(p.leases, func(le lease) bool { return le.addr.Addr().Is6() }) {
		settings = append(settings,
			[2]string{"net/ipv6/conf/lo/disable_ipv6", "0"},
			[2]string{"net/ipv6/conf/" + name + "/disable_ipv6", "0"},
			[2]string{"net/ipv6/conf/" + name + "/keep_addr_on_down", "1"},
			[2]string{"net/ipv6/conf/" + name + "/accept_dad", "0"},
		)
	}
	for _, s := range settings {
		if err := sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	for _, le := range p.leases {
		if err := conn.AddAddr(l.Index, le.addr); err != nil {
			return err
		}
	}
	if err := conn.SetUp(l.Index); err != nil {
		return err
	}
	return p.addRoutes(conn, l.Index)
}

// addRoutes adds the routes in the order of the configuration, of which the kernel
// may have several to one destination. Exactly the same route a second time, as where
// isDefaultGateway repeats a configured route, changes nothing.
func (p *port) addRoutes(conn *rtnl.Conn, index int) error {
	for _, r := range p.routes() {
		gw := r.GW
		if !gw.IsValid() {
			gw = p.gateway(r.Dst)
		}
		if err := conn.AddRoute(index, r.Dst, gw); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// gateway returns the first gateway of the family of a destination. A destination
// of a family without a gateway is reached on the bridge itself.
func (p *port) gateway(dst netip.Prefix) netip.Addr {
	for _, le := range p.leases {
		if le.gateway.Is4() == dst.Addr().Is4() {
			return le.gateway
		}
	}
	return netip.Addr{}
}

// routes are those of the configuration and, where the bridge is to be the default
// gateway, one default route for each family for which the configuration names no
// gateway.
func (p *port) routes() []route {
	out := slices.Clone(p.conf.IPAM.Routes)
	if !p.conf.IsDefaultGateway {
		return out
	}
	for _, le := range p.leases {
		anywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if le.gateway.Is6() {
			anywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if !slices.ContainsFunc(out, func(r route) bool { return r.Dst == anywhere && r.GW.IsValid() }) {
			out = append(out, route{anywhere, le.gateway})
		}
	}
	return out
}

// Places of the interfaces in a result.
const (
	hostEnd = 1
	podEnd  = 2
)

func (p *port) result(host rtnl.Link) ([]byte, error) {
	res := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{
			{Name: p.bridge.Name, Mac: p.bridge.MAC.String()},
			hostEnd: {Name: host.Name, Mac: host.MAC.String()},
			podEnd:  {Name: p.call.IfName, Mac: p.mac.String(), Sandbox: p.call.NetNS},
		},
	}
	for _, le := range p.leases {
		res.IPs = append(res.IPs, &types100.IPConfig{
			Interface: types100.Int(podEnd), Address: ipNet(le.addr), Gateway: le.gateway.AsSlice(),
		})
	}
	for _, r := range p.routes() {
		res.Routes = append(res.Routes, &types.Route{Dst: ipNet(r.Dst), GW: r.GW.AsSlice()}) // without a gateway where none is configured
	}
	versioned, err := res.GetAsVersion(p.conf.CNIVersion)
	if err != nil {
		return nil, err
	}
	return json.Marshal(versioned)
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func gatewayPrefix(le lease) netip.Prefix { return netip.PrefixFrom(le.gateway, le.addr.Bits()) }
