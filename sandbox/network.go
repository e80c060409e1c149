package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podspec"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

const (
	checkTimeout     = time.Minute // for all interfaces of a pod
	checkConcurrency = 2           // pods
)

// SetPodCIDR sets the subnets of the node's pods, a list separated by commas, which the kubelet sends. Errors:
// ErrInvalidArgument, ErrFailedPrecondition.
func (m *Manager) SetPodCIDR(ctx context.Context, cidrs string) error {
	return m.net.SetPodCIDR(ctx, cidrs)
}

// networkPod returns the pod as CNI plugins see it. netns is the path of its network namespace.
func networkPod(r *record, netns string, spec *podspec.Spec) network.Pod {
	return network.Pod{
		ID:           r.ID,
		Name:         spec.Name.Name,
		Namespace:    spec.Name.Namespace,
		UID:          spec.Name.UID,
		NetNS:        netns,
		PortMappings: r.hostPorts(spec),
		DNS:          spec.DNS,
		Annotations:  spec.Config.Annotations,
		Bandwidth:    spec.Bandwidth,
		CgroupPath:   cgroupPath(r.CgroupParent),
	}
}

// hostPorts returns the port mappings that the pod has on the host.
func (r *record) hostPorts(spec *podspec.Spec) []network.PortMapping {
	if r.NoHostPorts {
		return nil
	}
	return spec.PortMappings
}

// awaitNetwork waits until the checks of the network that follow the start of the daemon have ended. Without the wait,
// the result of a request would depend on the speed of the machine.
func (b *build) awaitNetwork(ctx context.Context) error {
	if b.spec.Namespaces.HostNetwork {
		return nil
	}
	defer b.stages.enter("network configuration")()
	ctx, cancel := context.WithTimeout(ctx, b.m.cfg.SetupTimeout)
	defer cancel()
	return b.m.net.WaitChecked(ctx)
}

// planNetwork sets the interfaces of the pod in its record, and reserves its host ports.
func (b *build) planNetwork() (err error) {
	if b.rec.NoHostPorts = b.settings.NoHostPorts; b.rec.NoHostPorts && len(b.spec.PortMappings) > 0 {
		logrus.WithFields(logrus.Fields{"pod": b.rec.ID, "name": b.spec.Name.Name, "namespace": b.spec.Name.Namespace, "ports": len(b.spec.PortMappings)}).
			Info("host ports of the pod sandbox are not mapped, because cni.host_ports is false")
	}
	b.rec.NetNSName = b.m.newName(b.rec.ID)
	pod := b.networkPod()
	if first := b.spec.DefaultNetwork; first == "" {
		b.rec.Plan, err = b.m.net.Plan(pod, b.spec.Handler)
	} else {
		b.rec.Plan, err = b.m.net.PlanFor(pod, network.Interface{Network: first, Name: network.IfName})
	}
	if err != nil {
		return err
	}
	interfaces := slices.Clone(b.spec.Interfaces)
	for i := range interfaces {
		if interfaces[i].Plan, err = b.m.net.PlanFor(pod, interfaces[i]); err != nil {
			return err
		}
	}
	b.rec.Interfaces = interfaces
	return b.m.ports.reserve(b.rec.ID, b.spec.Name, pod.PortMappings)
}

// attach attaches the pod to its networks, one after the other: all plugins work in the same network namespace, and a
// network may depend on the network before it.
func (b *build) attach(ctx context.Context) error {
	leave := b.stages.enter("CNI ADD")
	defer leave()
	pod := b.networkPod()
	res, err := b.m.net.Attach(ctx, pod, network.Default(b.rec.Plan))
	if err != nil {
		b.m.net.RequestGC()
		return err
	}
	b.rec.IPs, b.rec.CNIResult = b.settings.PreferFamily.order(res.IPs), res.JSON
	for i, next := range b.rec.Interfaces {
		res, err := b.m.net.Attach(ctx, pod, next)
		if err != nil {
			b.m.net.RequestGC()
			return err
		}
		b.rec.Interfaces[i].Result = res.JSON
	}
	if len(b.spec.InterfaceSysctls) == 0 {
		return nil
	}
	return namespace.WriteSysctls(pod.NetNS, b.spec.InterfaceSysctls)
}

// attachments returns the interfaces of the pod, eth0 first. A pod with the network of the host has none.
func (r *record) attachments() []network.Interface {
	if r.Plan == nil {
		return nil
	}
	return append([]network.Interface{network.Default(r.Plan)}, r.Interfaces...)
}

// detach detaches the pod from its networks, the last network first. If a network fails, detach continues with the
// others and returns all errors.
func (m *Manager) detach(ctx context.Context, e *entry) error {
	r := e.rec
	if r.Plan == nil || !r.DetachedAt.IsZero() {
		return nil
	}
	netns := netnsPath(r.NetNSName, m.dirs.netns(r.ID))
	if !namespace.Pinned(netns) {
		netns = "" // the CNI specification allows DEL without a network namespace
	}
	pod := networkPod(r, netns, e.spec)
	var errs []error
	for _, i := range slices.Backward(r.attachments()) {
		errs = append(errs, m.net.Detach(ctx, pod, i))
	}
	return errors.Join(errs...)
}

// checkNetworks calls CNI CHECK once after the start of the daemon, for the pods that an earlier
// daemon created. An error is logged and shown with the pod, but the pod stays ready: otherwise the
// kubelet would recreate all pods of the node if a plugin failed for a moment, for example while
// its own agent restarts.
func (m *Manager) checkNetworks(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(checkConcurrency)
	for id, e := range m.view.Load().entries {
		if e.hidden || !e.rec.ready() || e.rec.Plan == nil {
			continue
		}
		g.Go(func() error { m.checkNetwork(ctx, id, e); return nil })
	}
	_ = g.Wait() // the functions return no errors
}

// checkNetwork runs CNI CHECK for the interfaces of a pod, and records the error if the check fails.
func (m *Manager) checkNetwork(ctx context.Context, id string, e *entry) {
	bounded, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	log := logrus.WithContext(ctx).WithField("pod", id)
	pod := networkPod(e.rec, netnsPath(e.rec.NetNSName, m.dirs.netns(id)), e.spec)
	err := m.checkInterfaces(bounded, pod, e.rec.attachments())
	if err == nil || ctx.Err() != nil {
		return
	}
	if bounded.Err() != nil {
		// A timeout is no statement about the pod.
		log.WithError(err).Warn("timeout of CNI CHECK for the pod sandbox")
		return
	}
	unlock, lockErr := m.ops.Lock(ctx, id)
	if lockErr != nil {
		return // the daemon is shutting down
	}
	defer unlock()
	// If the pod was stopped during the check, the error is expected.
	current := m.view.Load().entries[id]
	if current == nil || !current.rec.ready() {
		return
	}
	log.WithError(err).Warn("CNI CHECK failed for the pod sandbox")
	next := current.copy()
	next.networkFault = err.Error()
	m.publish(next)
}

func (m *Manager) checkInterfaces(ctx context.Context, pod network.Pod, interfaces []network.Interface) error {
	for _, i := range interfaces {
		if err := m.net.Check(ctx, pod, i); err != nil {
			return err
		}
	}
	return nil
}

// loopback has the addresses to which Dial connects, in order.
var loopback = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// Dial connects to a TCP port of a ready pod. It tries the loopback addresses in the network
// namespace of the pod; for a pod with the network of the host, the loopback addresses of the host.
// If the pod may run under its own kernel, which has taken over the addresses of the pod, Dial then
// tries these addresses from the host.
//
// Errors: ErrNotFound, ErrFailedPrecondition for a pod that is not ready, otherwise the errors of
// all attempts.
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
	if pod.Namespaces.Net != "" && m.settings.Load().HasGuests(pod.EffectiveHandler()) {
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
