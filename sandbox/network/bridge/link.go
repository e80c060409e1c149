package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openNetlink returns a handle with a socket in the network namespace of the calling thread. The handle stays in that
// namespace when other threads use it.
func openNetlink() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return h, nil
}

// isNoLink reports whether an error says that an interface does not exist.
func isNoLink(err error) bool {
	return errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV)
}

func linkByName(h *netlink.Handle, name string) (netlink.Link, error) {
	l, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("get interface %s: %w", name, err)
	}
	return l, nil
}

// ensureBridge returns the bridge. It creates a missing bridge and brings the bridge up.
func ensureBridge(h *netlink.Handle, name string, mtu int) (netlink.Link, error) {
	l, err := linkByName(h, name)
	if isNoLink(err) {
		if err := addBridge(h, name, mtu, net.FlagUp); err != nil {
			return nil, err
		}
		l, err = linkByName(h, name)
	}
	if err != nil {
		return nil, err
	}
	if l.Type() != "bridge" {
		return nil, fmt.Errorf("interface %s is of type %q and not a bridge", name, l.Type())
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		if err := h.LinkSetUp(l); err != nil {
			return nil, fmt.Errorf("bring up bridge %s: %w", name, err)
		}
	}
	return l, nil
}

func addBridge(h *netlink.Handle, name string, mtu int, flags net.Flags) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Flags = name, mtu, flags
	attrs.HardwareAddr = newMAC() // without an address, the kernel chooses one, and changes it with the ports
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	// The host does not accept router advertisements from the pods on the bridge.
	err := namespace.Sysctl{Path: "net/ipv6/conf/" + name + "/accept_ra", Value: "0"}.Ensure()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// ensureGateways gives the bridge the gateway addresses of the pods and enables forwarding on the host.
func ensureGateways(h *netlink.Handle, bridge netlink.Link, leases []lease) error {
	for _, l := range leases {
		if err := ensureGateway(h, bridge, netip.PrefixFrom(l.gateway, l.addr.Bits())); err != nil {
			return err
		}
		forwarding := namespace.Sysctl{Path: "net/ipv4/ip_forward", Value: "1"}
		if l.gateway.Is6() {
			forwarding.Path = "net/ipv6/conf/all/forwarding"
		}
		if err := forwarding.Ensure(); err != nil {
			return err
		}
	}
	return nil
}

// ensureGateway refuses a gateway if the bridge has another address of the same subnet. That address was the gateway
// before a change of the configuration: running pods still use it, and a new pod could get it. ensureGateway keeps the
// addresses of other subnets, because pods of an earlier configuration need their gateway.
func ensureGateway(h *netlink.Handle, bridge netlink.Link, gateway netip.Prefix) error {
	addrs, err := addresses(h, bridge, gateway.Addr().Is6())
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if a == gateway {
			return nil
		}
		if a.Overlaps(gateway) {
			return fmt.Errorf("bridge %s has the address %s, but the configuration has the gateway %s: delete the address when no pod uses it any more, or configure it as the gateway: %w",
				bridge.Attrs().Name, a, gateway, errdefs.ErrFailedPrecondition)
		}
	}
	return addAddress(h, bridge, gateway)
}

// maxDumps is the maximum number of attempts to list interfaces or addresses. The kernel interrupts a list when
// another process changes an interface or an address.
const maxDumps = 10

// links returns all interfaces of the network namespace of a handle.
func links(h *netlink.Handle) ([]netlink.Link, error) {
	all, err := h.LinkList()
	for i := 1; i < maxDumps && errors.Is(err, netlink.ErrDumpInterrupted); i++ {
		all, err = h.LinkList()
	}
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return all, nil
}

// addresses returns the IPv4 or IPv6 addresses of an interface in the order of the kernel.
func addresses(h *netlink.Handle, l netlink.Link, v6 bool) ([]netip.Prefix, error) {
	family := netlink.FAMILY_V4
	if v6 {
		family = netlink.FAMILY_V6
	}
	list, err := h.AddrList(l, family)
	for i := 1; i < maxDumps && errors.Is(err, netlink.ErrDumpInterrupted); i++ {
		list, err = h.AddrList(l, family)
	}
	if err != nil {
		return nil, fmt.Errorf("list the addresses of interface %s: %w", l.Attrs().Name, err)
	}
	out := make([]netip.Prefix, len(list))
	for i, a := range list {
		out[i] = prefixOf(*a.IPNet)
	}
	return out, nil
}

// addAddress gives an interface an address if the interface does not have it. The address can be used at once: the
// kernel does not search for duplicates, because the lease belongs to one pod.
func addAddress(h *netlink.Handle, l netlink.Link, addr netip.Prefix) error {
	n := ipNet(addr)
	err := h.AddrAdd(l, &netlink.Addr{IPNet: &n, Flags: unix.IFA_F_NODAD})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s to interface %s: %w", addr, l.Attrs().Name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

const (
	// portTimeout bounds the time until a port of the bridge forwards frames. The kernel reports a change of the link
	// within a second if it gets CPU time.
	portTimeout = 30 * time.Second
	// maxPause bounds the pause between two queries of the port.
	maxPause = 100 * time.Millisecond
)

// waitUntilUp waits until the kernel reports that both ends of a veth pair are up, and returns the interface.
func waitUntilUp(ctx context.Context, h *netlink.Handle, name string) (netlink.Link, error) {
	deadline := time.Now().Add(portTimeout)
	for pause := time.Millisecond; ; pause = min(2*pause, maxPause) {
		l, err := linkByName(h, name)
		if err != nil || l.Attrs().OperState == netlink.OperUp {
			return l, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("bridge port %s is not up after %s", name, portTimeout)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("wait until bridge port %s is up: %w", name, context.Cause(ctx))
		}
	}
}
