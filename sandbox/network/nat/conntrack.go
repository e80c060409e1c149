package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// maxConntrackDumps bounds the attempts to list the connection tracking table while the kernel changes it.
const maxConntrackDumps = 10

// deleteUDPFlows deletes the connection tracking entries of the UDP host ports in mappings. The
// kernel looks at the rules of NAT only for the first packet of a flow. Without the deletion, a
// client that keeps its source port would still reach a removed pod, or no pod if it has sent a
// packet before the pod existed. addrs are the addresses of the pod.
//
// TCP and SCTP need no deletion, because a new connection is a new flow.
func deleteUDPFlows(ctx context.Context, mappings []PortMapping, addrs []netip.Prefix) error {
	stale := &udpFlows{ports: make(map[uint16]bool)}
	for _, m := range mappings {
		if m.Protocol == "udp" {
			stale.ports[uint16(m.HostPort)] = true
		}
	}
	if len(stale.ports) == 0 {
		return nil
	}
	host, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list the addresses of the host: %w", err)
	}
	for _, a := range host {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			stale.host = append(stale.host, p.Addr())
		}
	}
	for _, a := range addrs {
		stale.pod = append(stale.pod, a.Addr())
	}
	for port := range stale.ports {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			err := stale.delete(family, port)
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
				logrus.WithContext(ctx).WithError(err).Warn("the kernel has no nf_conntrack_netlink: clients of a UDP host port may not reach a new pod until they pause")
				return nil
			}
			if err != nil {
				return fmt.Errorf("delete the connection tracking entries of UDP host port %d: %w", port, err)
			}
		}
	}
	return nil
}

// udpFlows selects the UDP flows to some ports of the host, or from these ports to a pod.
type udpFlows struct {
	ports     map[uint16]bool
	host, pod []netip.Addr
}

// flow is a connection tracking entry.
type flow struct {
	protocol uint8
	dst      netip.Addr // the destination of the first packet
	port     uint16     // the destination port of the first packet
	answers  netip.Addr // the address that answers, which is the address of the pod after DNAT
}

// match reports whether a flow is selected. Flows that other machines receive on the same port,
// such as the DNS queries of pods, are not selected.
func (u *udpFlows) match(f flow) bool {
	if f.protocol != unix.IPPROTO_UDP || !u.ports[f.port] {
		return false
	}
	return f.dst.IsLoopback() || slices.Contains(u.host, f.dst) || slices.Contains(u.pod, f.answers)
}

// delete deletes the selected flows to a port.
func (u *udpFlows) delete(family uint8, port uint16) error {
	entries, err := dumpUDPFlows(family, port)
	for i := 1; i < maxConntrackDumps && errors.Is(err, nl.ErrDumpInterrupted); i++ {
		entries, err = dumpUDPFlows(family, port)
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		f, err := parseFlow(entry)
		if err == nil && u.match(f) {
			req := conntrackRequest(family, nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
			req.AddRawData(entry[nl.SizeofNfgenmsg:])
			if _, err = req.Execute(unix.NETLINK_NETFILTER, 0); errors.Is(err, unix.ENOENT) {
				err = nil // the entry has expired
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func conntrackRequest(family uint8, operation, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|operation, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return req
}

// Constants of linux/netfilter/nfnetlink_conntrack.h and, for the flags, of net/netfilter/nf_internals.h.
const (
	ctaFilter          = 25
	ctaFilterOrigFlags = 1
	filterProtocol     = 1 << 3
	filterDstPort      = 1 << 5
)

// dumpUDPFlows returns the UDP flows to a port. The kernel (5.8 or later) selects the flows: the
// netlink library can only read the whole table, which takes most of a second for 50,000 entries.
func dumpUDPFlows(family uint8, port uint16) ([][]byte, error) {
	tuple := nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_ORIG, nil)
	protocol := nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil)
	protocol.AddRtAttr(nl.CTA_PROTO_NUM, []byte{unix.IPPROTO_UDP})
	protocol.AddRtAttr(nl.CTA_PROTO_DST_PORT, nl.BEUint16Attr(port))
	tuple.AddChild(protocol)
	filter := nl.NewRtAttr(unix.NLA_F_NESTED|ctaFilter, nil)
	filter.AddRtAttr(ctaFilterOrigFlags, nl.Uint32Attr(filterProtocol|filterDstPort))
	req := conntrackRequest(family, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	req.AddData(tuple)
	req.AddData(filter)
	return req.Execute(unix.NETLINK_NETFILTER, 0)
}

// parseFlow parses struct nfgenmsg and the attributes of an entry.
func parseFlow(entry []byte) (flow, error) {
	var f flow
	if len(entry) < nl.SizeofNfgenmsg {
		return f, errors.New("truncated connection tracking entry")
	}
	err := eachAttr(entry[nl.SizeofNfgenmsg:], func(kind uint16, tuple []byte) error {
		if kind != nl.CTA_TUPLE_ORIG && kind != nl.CTA_TUPLE_REPLY {
			return nil
		}
		return eachAttr(tuple, func(part uint16, value []byte) error {
			return eachAttr(value, func(field uint16, value []byte) error {
				f.set(kind, part, field, value)
				return nil
			})
		})
	})
	return f, err
}

// set sets a field of the flow from an attribute of the part (addresses or protocol) of a tuple.
func (f *flow) set(tuple, part, field uint16, value []byte) {
	addr, _ := netip.AddrFromSlice(value)
	original := tuple == nl.CTA_TUPLE_ORIG
	switch {
	case part == nl.CTA_TUPLE_IP && original && (field == nl.CTA_IP_V4_DST || field == nl.CTA_IP_V6_DST):
		f.dst = addr
	case part == nl.CTA_TUPLE_IP && !original && (field == nl.CTA_IP_V4_SRC || field == nl.CTA_IP_V6_SRC):
		f.answers = addr
	case part == nl.CTA_TUPLE_PROTO && original && field == nl.CTA_PROTO_NUM && len(value) == 1:
		f.protocol = value[0]
	case part == nl.CTA_TUPLE_PROTO && original && field == nl.CTA_PROTO_DST_PORT && len(value) == 2:
		f.port = binary.BigEndian.Uint16(value)
	}
}

// eachAttr calls fn for each netlink attribute, without the flags in its type.
func eachAttr(b []byte, fn func(kind uint16, value []byte) error) error {
	attrs, err := nl.ParseRouteAttr(b)
	for _, a := range attrs {
		if err == nil {
			err = fn(a.Attr.Type&nl.NLA_TYPE_MASK, a.Value)
		}
	}
	return err
}
