// Package bridge is the CNI plugins bridge and host-local, as far as pods
// usually need them, without a process: what they do in a dozen milliseconds of
// CPU time is a dozen netlink messages. It takes the same configuration, gives
// the same results and keeps leases in the same files, so that either may undo
// what the other did. A configuration with anything else in it is not for it.
package bridge

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
)

// conf is the configuration of both plugins with all that this package knows.
// Whoever adds a field must honour it.
type conf struct {
	CNIVersion       string          `json:"cniVersion"`
	Name             string          `json:"name"`
	Type             string          `json:"type"`
	Bridge           string          `json:"bridge"`
	IsGateway        bool            `json:"isGateway"`
	IsDefaultGateway bool            `json:"isDefaultGateway"`
	IPMasq           bool            `json:"ipMasq"`
	IPMasqBackend    string          `json:"ipMasqBackend"`
	HairpinMode      bool            `json:"hairpinMode"`
	MTU              int             `json:"mtu"`
	IPAM             ipam            `json:"ipam"`
	PrevResult       json.RawMessage `json:"prevResult"`

	ValidAttachments []attachment `json:"cni.dev/valid-attachments"`
	Attachments      []attachment `json:"cni.dev/attachments"` // the same
}

type ipam struct {
	Type    string     `json:"type"`
	DataDir string     `json:"dataDir"`
	Ranges  [][]subnet `json:"ranges"`
	Routes  []route    `json:"routes"`
	subnet
}

// subnet is a range of addresses; netip refuses what is not an address.
type subnet struct {
	Subnet     netip.Prefix `json:"subnet"`
	RangeStart netip.Addr   `json:"rangeStart"`
	RangeEnd   netip.Addr   `json:"rangeEnd"`
	Gateway    netip.Addr   `json:"gateway"`
}

type route struct {
	Dst netip.Prefix `json:"dst"`
	GW  netip.Addr   `json:"gw"`
}

type attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

const (
	defaultBridge  = "cni0"
	defaultDataDir = "/var/lib/cni/networks"
)

// parse returns the configuration, or nil when there is something in it that
// only the plugins themselves know how to do.
func parse(stdin []byte) *conf {
	d := json.NewDecoder(bytes.NewReader(stdin))
	d.DisallowUnknownFields()
	c := &conf{}
	if d.Decode(c) != nil || c.Type != "bridge" || c.IPMasq || c.IPAM.Type != "host-local" || strings.ContainsAny(c.Name, "/\x00") || c.Name == "" {
		return nil
	}
	if c.Bridge == "" {
		c.Bridge = defaultBridge
	}
	if c.IPAM.DataDir == "" {
		c.IPAM.DataDir = defaultDataDir
	}
	// The old form with one subnet stands for a first range.
	if c.IPAM.Subnet.IsValid() {
		c.IPAM.Ranges = append([][]subnet{{c.IPAM.subnet}}, c.IPAM.Ranges...)
	}
	if len(c.IPAM.Ranges) == 0 || c.MTU < 0 {
		return nil
	}
	for _, set := range c.IPAM.Ranges {
		if len(set) == 0 {
			return nil
		}
		for i := range set {
			if !set[i].complete() {
				return nil
			}
		}
	}
	for _, r := range c.IPAM.Routes {
		if !r.Dst.IsValid() || !isPlain(r.Dst.Addr()) || !isPlain(r.GW) {
			return nil
		}
	}
	return c
}

// isPlain reports whether an address is written in the form of its own family and
// without a zone. The plugins read other forms in another way.
func isPlain(a netip.Addr) bool { return !a.Is4In6() && a.Zone() == "" }

// sound reports whether host-local would give out addresses of these ranges: those of
// a set are of one family, and no two overlap. Otherwise the plugin returns its error.
// Addresses that were given out all the same can still be freed.
func (c *conf) sound() bool {
	var seen []subnet
	for _, set := range c.IPAM.Ranges {
		for _, s := range set {
			if s.Subnet.Addr().Is4() != set[0].Subnet.Addr().Is4() || slices.ContainsFunc(seen, s.overlaps) {
				return false
			}
			seen = append(seen, s)
		}
	}
	return true
}

func (s subnet) overlaps(o subnet) bool {
	return s.RangeStart.Is4() == o.RangeStart.Is4() && s.RangeStart.Compare(o.RangeEnd) <= 0 && o.RangeStart.Compare(s.RangeEnd) <= 0
}

// complete fills in the defaults and says whether the range makes sense. One
// that does not is left to the plugin, whose error is the better known.
func (s *subnet) complete() bool {
	p := s.Subnet
	if !isPlain(p.Addr()) || !isPlain(s.RangeStart) || !isPlain(s.RangeEnd) || !isPlain(s.Gateway) {
		return false
	}
	if !p.IsValid() || p != p.Masked() || p.Addr().BitLen()-p.Bits() < 2 {
		return false
	}
	first := p.Addr().Next()
	if !s.Gateway.IsValid() {
		s.Gateway = first
	}
	if !s.RangeStart.IsValid() {
		s.RangeStart = first
	}
	if !s.RangeEnd.IsValid() {
		s.RangeEnd = last(p)
	}
	return p.Contains(s.RangeStart) && p.Contains(s.RangeEnd) && s.RangeStart.Compare(s.RangeEnd) <= 0 && s.Gateway.Is4() == p.Addr().Is4()
}

// last is the last address for a pod: IPv4 keeps the very last for broadcasts.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	if a.Is4() {
		return a.Prev()
	}
	return a
}
