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

// loopback has the addresses to which Dial connects, in order.
var loopback = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// Dial connects to a TCP port of a ready pod. It tries the loopback addresses in the network namespace of the pod; for a
// pod with the network of the host, the loopback addresses of the host. If the pod may run under its own kernel, which has
// taken over the addresses of the pod, Dial then tries these addresses from the host.
//
// Errors: ErrNotFound, ErrFailedPrecondition for a pod that is not ready, otherwise the errors of all attempts.
func (m *Manager) Dial(ctx context.Context, id string, port uint16) (net.Conn, error) {
	pod, err := m.Get(id)
	if err != nil {
		return nil, err
	}
	if !pod.Ready {
		return nil, fmt.Errorf("connect to pod sandbox %q: pod sandbox is not ready: %w", pod.ID, errdefs.ErrFailedPrecondition)
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
