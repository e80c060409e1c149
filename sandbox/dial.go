package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/namespace"
)

// loopback are the addresses at which a pod's ports are looked for, in order.
var loopback = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// Dial connects to a TCP port of a ready pod from inside it, at the first
// loopback address where somebody answers. For a pod with the host's network
// these are the host's. A pod whose guest has taken over its addresses has no
// inside to connect from, and is tried at those, from the host. Errors: ErrNotFound, ErrFailedPrecondition when the pod
// is not ready, else those of the dials.
func (m *Manager) Dial(ctx context.Context, id string, port uint16) (net.Conn, error) {
	pod, err := m.Get(id)
	if err != nil {
		return nil, err
	}
	if !pod.Ready {
		return nil, fmt.Errorf("connect to pod sandbox %q: it is not ready: %w", pod.ID, errdefs.ErrFailedPrecondition)
	}
	var errs []error
	for _, ip := range loopback {
		c, err := namespace.Dial(ctx, pod.Namespaces.Net, netip.AddrPortFrom(ip, port))
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	if pod.Namespaces.Net != "" && m.cfg.HasGuests(pod.RuntimeHandler) {
		for _, ip := range pod.IPs {
			c, err := namespace.Dial(ctx, "", netip.AddrPortFrom(ip, port))
			if err == nil {
				return c, nil
			}
			errs = append(errs, err)
		}
	}
	return nil, fmt.Errorf("connect to pod sandbox %q: %w", pod.ID, errors.Join(errs...))
}
