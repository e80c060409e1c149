package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
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

// Run does what the plugin would and returns what it would write. It reports
// false when the call is not for it and the plugin has to be executed.
func Run(call Call) (stdout []byte, mine bool, err error) {
	c := parse(call.Stdin)
	if c == nil {
		return nil, false, nil
	}
	switch call.Command {
	case "ADD":
		stdout, err = add(c, call)
	case "DEL":
		err = del(c, call)
	case "CHECK":
		err = check(c, call)
	case "GC":
		err = collect(c)
	case "STATUS": // there is nothing that could be missing
	default:
		return nil, false, nil
	}
	return stdout, true, err
}

// add attaches a pod. What it did when it fails is del's to undo, but for the
// addresses, which del may not find.
func add(c *conf, call Call) ([]byte, error) {
	conn, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	br, err := ensureBridge(conn, c.Bridge, c.MTU)
	if err != nil {
		return nil, err
	}
	store, err := openLeases(c)
	if err != nil {
		return nil, fmt.Errorf("reserve addresses: %w", err)
	}
	ls, err := store.reserve(c.IPAM.Ranges, owner(call.ContainerID, call.IfName))
	store.free()
	if err != nil {
		return nil, fmt.Errorf("reserve addresses: %w", err)
	}
	if c.IsGateway || c.IsDefaultGateway {
		if err := ensureGateways(conn, br.Index, ls); err != nil {
			return nil, errors.Join(err, free(c, call, ls))
		}
	}
	p := &port{conf: c, call: call, conn: conn, bridge: br, leases: ls, host: newVethName(), mac: newMAC()}
	out, err := p.plug()
	if err != nil {
		return nil, errors.Join(err, free(c, call, ls))
	}
	return out, nil
}

func free(c *conf, call Call, ls []lease) error {
	store, err := openLeases(c)
	if err != nil {
		return err
	}
	defer store.free()
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

func (p *port) plug() ([]byte, error) {
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
	if l, err = waitRunning(p.conn, p.host); err != nil {
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
	for _, r := range p.routes() {
		if err := conn.AddRoute(l.Index, r.Dst, r.GW); err != nil {
			return err
		}
	}
	return nil
}

// routes are those of the configuration, each with a gateway, and the default
// routes where the bridge is to be the default gateway.
func (p *port) routes() []route {
	var out []route
	add := func(dst netip.Prefix, gw netip.Addr) {
		if !slices.ContainsFunc(out, func(r route) bool { return r.Dst == dst }) {
			out = append(out, route{dst, gw})
		}
	}
	for _, r := range p.conf.IPAM.Routes {
		gw := r.GW
		for _, le := range p.leases {
			if !gw.IsValid() && le.gateway.Is4() == r.Dst.Addr().Is4() {
				gw = le.gateway
			}
		}
		if gw.IsValid() {
			add(r.Dst, gw)
		}
	}
	if p.conf.IsDefaultGateway {
		for _, le := range p.leases {
			any4, any6 := netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			if le.gateway.Is4() {
				add(any4, le.gateway)
			} else {
				add(any6, le.gateway)
			}
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
		res.Routes = append(res.Routes, &types.Route{Dst: ipNet(r.Dst), GW: r.GW.AsSlice()})
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
