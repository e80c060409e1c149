package rtnl

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Link is a network interface.
type Link struct {
	Index  int
	Name   string
	Kind   string // "bridge", "veth", …
	MAC    net.HardwareAddr
	MTU    int
	Master int // index of the bridge it is a port of, or 0
	Up     bool
	// Running says that it can carry traffic: it is up and so is its other end.
	Running bool
}

const operUp = 6 // IF_OPER_UP of linux/if.h

// LinkByName looks an interface up. unix.ENODEV when there is none.
func (c *Conn) LinkByName(name string) (Link, error) {
	r := newRequest(unix.RTM_GETLINK, 0, &unix.IfInfomsg{})
	r.attrString(unix.IFLA_IFNAME, name)
	b, err := c.do(r)
	if err != nil {
		return Link{}, fmt.Errorf("look up interface %s: %w", name, err)
	}
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, fmt.Errorf("look up interface %s: the answer is cut off", name)
	}
	return parseLink(b), nil
}

func parseLink(b []byte) Link {
	l := Link{Index: int(int32(order.Uint32(b[4:]))), Up: order.Uint32(b[8:])&unix.IFF_UP != 0}
	for kind, data := range attrs(b[unix.SizeofIfInfomsg:]) {
		switch {
		case kind == unix.IFLA_IFNAME:
			l.Name = cString(data)
		case kind == unix.IFLA_ADDRESS:
			l.MAC = append(l.MAC, data...)
		case kind == unix.IFLA_MTU && len(data) == 4:
			l.MTU = int(order.Uint32(data))
		case kind == unix.IFLA_MASTER && len(data) == 4:
			l.Master = int(order.Uint32(data))
		case kind == unix.IFLA_OPERSTATE && len(data) == 1:
			l.Running = data[0] == operUp
		case kind == unix.IFLA_LINKINFO:
			for kind, data := range attrs(data) {
				if kind == unix.IFLA_INFO_KIND {
					l.Kind = cString(data)
				}
			}
		}
	}
	return l
}

func cString(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// AddBridge makes a bridge and brings it up. Its address is given, as one of
// its own choice changes with its ports. unix.EEXIST when the name is taken.
func (c *Conn) AddBridge(name string, mac net.HardwareAddr, mtu int) error {
	r := newRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, &unix.IfInfomsg{Flags: unix.IFF_UP, Change: unix.IFF_UP})
	r.attrString(unix.IFLA_IFNAME, name)
	r.attr(unix.IFLA_ADDRESS, mac)
	if mtu > 0 {
		r.attr32(unix.IFLA_MTU, mtu)
	}
	r.nest(unix.IFLA_LINKINFO, func() { r.attrString(unix.IFLA_INFO_KIND, "bridge") })
	return c.run(r, "make bridge "+name)
}

// vethPeer is VETH_INFO_PEER of linux/veth.h.
const vethPeer = 1

// Veth is a pair of interfaces to make, both down.
type Veth struct {
	Name     string
	Peer     string
	PeerNS   int // descriptor of the peer's network namespace
	MTU      int // 0 for the kernel's choice
	PeerAddr net.HardwareAddr
}

// AddVeth makes the pair, its peer in the other namespace from the start.
func (c *Conn) AddVeth(v Veth) error {
	r := newRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, &unix.IfInfomsg{})
	r.attrString(unix.IFLA_IFNAME, v.Name)
	if v.MTU > 0 {
		r.attr32(unix.IFLA_MTU, v.MTU)
	}
	r.nest(unix.IFLA_LINKINFO, func() {
		r.attrString(unix.IFLA_INFO_KIND, "veth")
		r.nest(unix.IFLA_INFO_DATA, func() {
			r.nest(vethPeer, func() {
				r.raw(make([]byte, unix.SizeofIfInfomsg))
				r.attrString(unix.IFLA_IFNAME, v.Peer)
				r.attr32(unix.IFLA_NET_NS_FD, v.PeerNS)
				r.attr(unix.IFLA_ADDRESS, v.PeerAddr)
				if v.MTU > 0 {
					r.attr32(unix.IFLA_MTU, v.MTU)
				}
			})
		})
	})
	return c.run(r, "make veth "+v.Name)
}

// SetUp brings an interface up.
func (c *Conn) SetUp(index int) error {
	r := newRequest(unix.RTM_NEWLINK, 0, &unix.IfInfomsg{Index: int32(index), Flags: unix.IFF_UP, Change: unix.IFF_UP})
	return c.run(r, "bring up interface")
}

// Join makes an interface a port of a bridge and brings it up.
func (c *Conn) Join(index, bridge int) error {
	r := newRequest(unix.RTM_NEWLINK, 0, &unix.IfInfomsg{Index: int32(index), Flags: unix.IFF_UP, Change: unix.IFF_UP})
	r.attr32(unix.IFLA_MASTER, bridge)
	return c.run(r, "join bridge")
}

// Leave takes an interface down and off its bridge.
func (c *Conn) Leave(index int) error {
	r := newRequest(unix.RTM_NEWLINK, 0, &unix.IfInfomsg{Index: int32(index), Change: unix.IFF_UP})
	r.attr32(unix.IFLA_MASTER, 0)
	return c.run(r, "leave bridge")
}

// DeleteLink deletes an interface, and with one end of a veth pair the other. unix.ENODEV
// when there is none.
func (c *Conn) DeleteLink(index int) error {
	r := newRequest(unix.RTM_DELLINK, 0, &unix.IfInfomsg{Index: int32(index)})
	return c.run(r, "delete interface")
}

// SetHairpin lets a bridge send frames back out of the port they came in by.
func (c *Conn) SetHairpin(index int) error {
	r := newRequest(unix.RTM_SETLINK, 0, &unix.IfInfomsg{Family: unix.AF_BRIDGE, Index: int32(index)})
	r.nest(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, func() { r.attr(unix.IFLA_BRPORT_MODE, []byte{1}) })
	return c.run(r, "set hairpin mode")
}

// AddAddr gives an interface an address, usable at once: nobody else has it, so
// no duplicate is looked for. unix.EEXIST when it has it already.
func (c *Conn) AddAddr(index int, addr netip.Prefix) error {
	m := unix.IfAddrmsg{Family: family(addr.Addr()), Prefixlen: uint8(addr.Bits()), Index: uint32(index), Flags: unix.IFA_F_NODAD}
	r := newRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, &m)
	r.attr(unix.IFA_LOCAL, addr.Addr().AsSlice())
	r.attr(unix.IFA_ADDRESS, addr.Addr().AsSlice())
	if addr.Addr().Is4() && addr.Bits() < 31 {
		r.attr(unix.IFA_BROADCAST, broadcast(addr))
	}
	return c.run(r, "add address "+addr.String())
}

func broadcast(p netip.Prefix) []byte {
	a := p.Addr().As4()
	v := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	v |= ^uint32(0) >> p.Bits()
	return []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}

// Addrs returns the addresses of an interface of one family, in the order of the
// kernel.
func (c *Conn) Addrs(index int, v6 bool) ([]netip.Prefix, error) {
	m := unix.IfAddrmsg{Family: unix.AF_INET, Index: uint32(index)}
	if v6 {
		m.Family = unix.AF_INET6
	}
	var out []netip.Prefix
	err := c.exchange(newRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP, &m), func(b []byte) {
		// Kernels without strict checks list all interfaces.
		if len(b) < unix.SizeofIfAddrmsg || order.Uint32(b[4:]) != uint32(index) {
			return
		}
		if a, ok := parseAddr(b); ok {
			out = append(out, a)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return out, nil
}

// parseAddr reads struct ifaddrmsg and its attributes. IFA_LOCAL is the address where
// the kernel gives it; IFA_ADDRESS may be that of the other end of a link.
func parseAddr(b []byte) (p netip.Prefix, ok bool) {
	var a netip.Addr
	for kind, data := range attrs(b[unix.SizeofIfAddrmsg:]) {
		if kind == unix.IFA_LOCAL || kind == unix.IFA_ADDRESS && !ok {
			a, ok = netip.AddrFromSlice(data)
		}
	}
	return netip.PrefixFrom(a, int(b[1])), ok
}

// AddRoute adds a route through a gateway, or without one to what the interface
// reaches by itself. Of several IPv4 routes to one destination the last one counts;
// IPv6 uses all of them. unix.EEXIST when there is exactly this route.
func (c *Conn) AddRoute(index int, dst netip.Prefix, gateway netip.Addr) error {
	r := newRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, &unix.RtMsg{
		Family: family(dst.Addr()), Dst_len: uint8(dst.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_BOOT, Scope: unix.RT_SCOPE_UNIVERSE, Type: unix.RTN_UNICAST,
	})
	if dst.Bits() > 0 {
		r.attr(unix.RTA_DST, dst.Masked().Addr().AsSlice())
	}
	if gateway.IsValid() {
		r.attr(unix.RTA_GATEWAY, gateway.AsSlice())
	}
	r.attr32(unix.RTA_OIF, index)
	return c.run(r, "add route to "+dst.String())
}

func (c *Conn) run(r *request, what string) error {
	if _, err := c.do(r); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
