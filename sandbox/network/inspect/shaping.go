package inspect

import (
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bitsPerByte converts rates of the kernel, in bytes, to rates of the annotations of Kubernetes, in bits.
const bitsPerByte = 8

// readShaping returns the limits of the traffic of a pod, as the plugin bandwidth sets them: a token bucket filter at
// the interface of the host limits the traffic to the pod. The traffic from the pod is redirected to an ifb device
// with a token bucket filter.
func readShaping(host *netState, interfaces []Interface) []Shaping {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil
	}
	defer h.Close()
	if h.SetSocketTimeout(netlinkTimeout) != nil {
		return nil
	}
	var out []Shaping
	for _, i := range interfaces {
		if i.Peer == nil || i.Type != "veth" {
			continue
		}
		peer := host.byIndex[i.Peer.Index]
		if rate := bucketRate(h, peer); rate > 0 {
			out = append(out, Shaping{Interface: i.Name, Device: i.Peer.Name, Ingress: true, Rate: rate})
		}
		if ifb := redirection(h, host, peer); ifb != nil {
			if rate := bucketRate(h, ifb); rate > 0 {
				out = append(out, Shaping{Interface: i.Name, Device: ifb.Attrs().Name, Rate: rate})
			}
		}
	}
	return out
}

// bucketRate returns the rate of the token bucket filter of a device in bits per second, or 0.
func bucketRate(h *netlink.Handle, l netlink.Link) uint64 {
	qdiscs, err := h.QdiscList(l)
	if err != nil {
		return 0
	}
	for _, q := range qdiscs {
		if t, ok := q.(*netlink.Tbf); ok && t.Parent == netlink.HANDLE_ROOT {
			return t.Rate * bitsPerByte
		}
	}
	return 0
}

// redirection returns the device to which a filter redirects the packets that arrive on an interface, or nil.
func redirection(h *netlink.Handle, host *netState, l netlink.Link) netlink.Link {
	filters, err := h.FilterList(l, netlink.MakeHandle(0xffff, 0))
	if err != nil {
		return nil
	}
	for _, f := range filters {
		u, ok := f.(*netlink.U32)
		if !ok {
			continue
		}
		for _, a := range u.Actions {
			if m, ok := a.(*netlink.MirredAction); ok {
				return host.byIndex[m.Ifindex]
			}
		}
	}
	return nil
}
