package inspect

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// portState is the state of a bridge port, or of a bridge itself.
type portState struct {
	state             string
	hairpin, isolated bool
	vlans             []VLAN
	// The fields below belong to bridges.
	stp, vlanFiltering bool
}

// portStates are the names of the states of the spanning tree protocol, in the order of linux/if_bridge.h.
var portStates = []string{"disabled", "listening", "learning", "forwarding", "blocking"}

// Attributes of linux/if_link.h that package nl does not have.
const (
	iflaBrSTPState      = 5 // IFLA_BR_STP_STATE
	iflaBrVLANFiltering = 7 // IFLA_BR_VLAN_FILTERING
	iflaBrPortState     = 1 // IFLA_BRPORT_STATE
)

// readBridgePorts returns the state of all bridges and bridge ports in the network namespace of the calling thread, by
// index of the interface. It needs two requests for any number of ports.
func readBridgePorts() (map[int]portState, error) {
	out := make(map[int]portState)
	for _, family := range []int{unix.AF_UNSPEC, unix.AF_BRIDGE} {
		msgs, err := repeat(func() ([][]byte, error) { return dumpLinks(family) })
		if err != nil {
			return out, fmt.Errorf("list interfaces of family %d: %w", family, err)
		}
		for _, m := range msgs {
			if err := addLink(out, m, family == unix.AF_BRIDGE); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

func dumpLinks(family int) ([][]byte, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(family))
	if family == unix.AF_BRIDGE {
		req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(uint32(nl.RTEXT_FILTER_BRVLAN))))
	}
	return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
}

// addLink adds the bridge or the port that a message RTM_NEWLINK describes.
func addLink(out map[int]portState, m []byte, ofBridge bool) error {
	if len(m) < unix.SizeofIfInfomsg {
		return fmt.Errorf("the kernel has sent a message of %d bytes for an interface", len(m))
	}
	head := nl.DeserializeIfInfomsg(m)
	attrs, err := nl.ParseRouteAttr(m[head.Len():])
	if err != nil {
		return err
	}
	p := out[int(head.Index)]
	for _, a := range attrs {
		switch kind := a.Attr.Type &^ unix.NLA_F_NESTED; {
		case kind == unix.IFLA_LINKINFO && !ofBridge:
			err = p.addBridge(a.Value)
		case kind == unix.IFLA_PROTINFO && ofBridge:
			err = p.addPort(a.Value)
		case kind == unix.IFLA_AF_SPEC && ofBridge:
			err = p.addVLANs(a.Value)
		}
		if err != nil {
			return err
		}
	}
	out[int(head.Index)] = p
	return nil
}

// addBridge reads IFLA_LINKINFO.
func (p *portState) addBridge(info []byte) error {
	attrs, err := nl.ParseRouteAttr(info)
	if err != nil {
		return err
	}
	isBridge := false
	for _, a := range attrs {
		switch a.Attr.Type &^ unix.NLA_F_NESTED {
		case unix.IFLA_INFO_KIND:
			isBridge = nl.BytesToString(a.Value) == "bridge"
		case unix.IFLA_INFO_DATA:
			if !isBridge {
				return nil
			}
			data, err := nl.ParseRouteAttr(a.Value)
			if err != nil {
				return err
			}
			for _, d := range data {
				switch {
				case d.Attr.Type == iflaBrSTPState && len(d.Value) >= 4:
					p.stp = binary.NativeEndian.Uint32(d.Value) != 0
				case d.Attr.Type == iflaBrVLANFiltering && len(d.Value) >= 1:
					p.vlanFiltering = d.Value[0] != 0
				}
			}
		}
	}
	return nil
}

// addPort reads IFLA_PROTINFO.
func (p *portState) addPort(info []byte) error {
	attrs, err := nl.ParseRouteAttr(info)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if len(a.Value) == 0 {
			continue
		}
		on := a.Value[0] != 0
		switch a.Attr.Type {
		case iflaBrPortState:
			p.state = "unknown"
			if n := int(a.Value[0]); n < len(portStates) {
				p.state = portStates[n]
			}
		case nl.IFLA_BRPORT_MODE:
			p.hairpin = on
		case nl.IFLA_BRPORT_ISOLATED:
			p.isolated = on
		}
	}
	return nil
}

// addVLANs reads IFLA_AF_SPEC.
func (p *portState) addVLANs(spec []byte) error {
	attrs, err := nl.ParseRouteAttr(spec)
	if err != nil {
		return err
	}
	p.vlans = nil
	for _, a := range attrs {
		if a.Attr.Type != nl.IFLA_BRIDGE_VLAN_INFO || len(a.Value) < 4 {
			continue
		}
		v := nl.DeserializeBridgeVlanInfo(a.Value)
		p.vlans = append(p.vlans, VLAN{ID: int(v.Vid), PVID: v.Flags&nl.BRIDGE_VLAN_INFO_PVID != 0, Untagged: v.Flags&nl.BRIDGE_VLAN_INFO_UNTAGGED != 0})
	}
	return nil
}
