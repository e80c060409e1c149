package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxConntrackDumps bounds the attempts to list the connection tracking table while the kernel changes it.
const maxConntrackDumps = 10

// deleteUDPFlows deletes the connection tracking entries of the UDP host ports in mappings. The kernel looks at the rules
// of NAT only for the first packet of a flow. Without the deletion, a client that keeps its source port would still reach
// a removed pod, or no pod if it has sent a packet before the pod existed. addrs are the addresses of the pod.
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
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		err := deleteFlows(h, family, stale)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			logrus.WithContext(ctx).WithError(err).Warn("the kernel has no nf_conntrack_netlink: clients of a UDP host port may not reach a new pod until they pause")
			return nil
		}
		if err != nil {
			return fmt.Errorf("delete the connection tracking entries of UDP host ports: %w", err)
		}
	}
	return nil
}

func deleteFlows(h *netlink.Handle, family netlink.InetFamily, filter netlink.CustomConntrackFilter) (err error) {
	for range maxConntrackDumps {
		_, err = h.ConntrackDeleteFilters(netlink.ConntrackTable, family, filter)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
	return err
}

// udpFlows selects the UDP flows to some ports of the host, or from these ports to a pod.
type udpFlows struct {
	ports     map[uint16]bool
	host, pod []netip.Addr
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter. It does not select flows that other machines receive on
// the same port, such as the DNS queries of pods.
func (u *udpFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP || !u.ports[f.Forward.DstPort] {
		return false
	}
	dst, _ := netip.AddrFromSlice(f.Forward.DstIP)
	dst = dst.Unmap()
	answers, _ := netip.AddrFromSlice(f.Reverse.SrcIP) // the address that answers, which is the pod's after DNAT
	return dst.IsLoopback() || slices.Contains(u.host, dst) || slices.Contains(u.pod, answers.Unmap())
}
