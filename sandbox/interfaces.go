package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The annotations by which a pod asks for other networks than the default one;
// the CRI has no field for it. Both name networks that the operator lists in
// Config.CNI.Additional.
const (
	// networksAnnotation asks for further interfaces: names separated by commas,
	// each optionally followed by "@" and the name of the interface, or a JSON
	// array of objects with name, interface, mac and ips.
	networksAnnotation = "criserver.io/networks"
	// defaultNetworkAnnotation names the network of eth0.
	defaultNetworkAnnotation = "criserver.io/default-network"
)

const (
	maxInterfaces = 8
	maxIfName     = 15 // the kernel's IFNAMSIZ less its final NUL
)

// selection is an interface that a pod asks for.
type selection struct {
	Name      string   `json:"name"` // of the network
	Interface string   `json:"interface"`
	MAC       string   `json:"mac"`
	IPs       []string `json:"ips"`
}

// interfaces returns the interfaces that the pod asks for beside eth0, without
// their plans, and the name of eth0's network, "" for the default one.
func interfaces(c *cri.PodSandboxConfig, allowed []string) (first string, more []network.Interface, err error) {
	first, chosen := c.Annotations[defaultNetworkAnnotation]
	listed, extra := c.Annotations[networksAnnotation]
	if !chosen && !extra {
		return "", nil, nil
	}
	if hostNetwork(c) {
		return "", nil, invalid("annotations", "%q and %q must not be set for a pod with the host's network", defaultNetworkAnnotation, networksAnnotation)
	}
	if chosen && !slices.Contains(allowed, first) {
		return "", nil, invalid("annotations["+defaultNetworkAnnotation+"]", "%q is not one of the networks that pods may ask for (cni.additional_networks): %q", first, allowed)
	}
	if !extra {
		return first, nil, nil
	}
	const field = "annotations[" + networksAnnotation + "]"
	all, err := parseSelections(listed)
	if err != nil {
		return "", nil, invalid(field, "%v", err)
	}
	if len(all) > maxInterfaces {
		return "", nil, invalid(field, "asks for %d interfaces, more than %d", len(all), maxInterfaces)
	}
	for i, s := range all {
		if !slices.Contains(allowed, s.Name) {
			return "", nil, invalid(field, "%q is not one of the networks that pods may ask for (cni.additional_networks): %q", s.Name, allowed)
		}
		if s.Interface == "" {
			s.Interface = fmt.Sprintf("net%d", i+1)
		}
		if err := s.check(); err != nil {
			return "", nil, invalid(field, "%v", err)
		}
		if slices.ContainsFunc(more, func(i network.Interface) bool { return i.Name == s.Interface }) {
			return "", nil, invalid(field, "names interface %q twice", s.Interface)
		}
		more = append(more, network.Interface{Network: s.Name, Name: s.Interface, MAC: s.MAC, IPs: s.IPs})
	}
	return first, more, nil
}

func parseSelections(text string) ([]selection, error) {
	var out []selection
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&out); err != nil {
			return nil, fmt.Errorf("is not an array of objects with name, interface, mac and ips: %w", err)
		}
		if d.More() {
			return nil, errors.New("has something behind the array")
		}
		return out, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name, ifName, _ := strings.Cut(strings.TrimSpace(part), "@")
		out = append(out, selection{Name: name, Interface: ifName})
	}
	return out, nil
}

func (s *selection) check() error {
	odd := func(r rune) bool { return !isNameRune(r) }
	if len(s.Interface) > maxIfName || strings.ContainsFunc(s.Interface, odd) || slices.Contains([]string{".", "..", "lo", "all", "default", network.IfName}, s.Interface) {
		return fmt.Errorf("has interface %q, which must have 1 to %d letters, digits, '-', '_' and '.' and not be lo or %s", s.Interface, maxIfName, network.IfName)
	}
	if s.MAC != "" {
		if mac, err := net.ParseMAC(s.MAC); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return fmt.Errorf("has mac %q, which is not the Ethernet address of one interface", s.MAC)
		}
	}
	for _, ip := range s.IPs {
		_, err := netip.ParsePrefix(ip)
		if _, plain := netip.ParseAddr(ip); err != nil && plain != nil {
			return fmt.Errorf("has ips %q, which is not an address, with or without a prefix length", ip)
		}
	}
	return nil
}

// awaitNetwork waits, after a start of the daemon, until the checks of the network
// have ended. Without that the result of a request would depend on the speed of
// the machine.
func (b *build) awaitNetwork(ctx context.Context) error {
	if b.spec.Namespaces.HostNetwork {
		return nil
	}
	defer b.stages.enter("network configuration")()
	ctx, cancel := context.WithTimeout(ctx, b.m.cfg.SetupTimeout)
	defer cancel()
	return b.m.net.Await(ctx)
}

// planNetwork notes how the pod is to be attached, and claims its host ports.
func (b *build) planNetwork() error {
	first, more, err := interfaces(b.spec.Config, b.m.cfg.CNI.Additional)
	if err != nil {
		return err
	}
	pod := b.networkPod()
	if first == "" {
		b.rec.Plan, err = b.m.net.Plan(pod)
	} else {
		b.rec.Plan, err = b.m.net.PlanFor(pod, network.Interface{Network: first, Name: network.IfName})
	}
	if err != nil {
		return err
	}
	for i := range more {
		if more[i].Plan, err = b.m.net.PlanFor(pod, more[i]); err != nil {
			return err
		}
	}
	b.rec.Interfaces = more
	return b.m.ports.claim(b.rec.ID, b.spec.Name, pod.PortMappings)
}

// attach puts the pod on its networks, one after the other: plugins meet in one
// network namespace, and a later network may build on an earlier one.
func (b *build) attach(ctx context.Context) error {
	leave := b.stages.enter("CNI ADD")
	defer leave()
	pod := b.networkPod()
	res, err := b.m.net.Attach(ctx, pod, network.Default(b.rec.Plan))
	if err != nil {
		b.m.net.Suspect()
		return err
	}
	b.rec.IPs, b.rec.CNIResult = res.IPs, res.JSON
	for i, more := range b.rec.Interfaces {
		res, err := b.m.net.Attach(ctx, pod, more)
		if err != nil {
			b.m.net.Suspect()
			return err
		}
		b.rec.Interfaces[i].Result = res.JSON
	}
	if len(b.spec.InterfaceSysctls) == 0 {
		return nil
	}
	return namespace.Write(pod.NetNS, b.spec.InterfaceSysctls)
}

// attachments are the pod's interfaces, eth0 first. None with the host's network.
func (r *record) attachments() []network.Interface {
	if r.Plan == nil {
		return nil
	}
	return append([]network.Interface{network.Default(r.Plan)}, r.Interfaces...)
}

// detach takes the pod from its networks, the last one first. One that fails
// does not keep the others.
func (m *Manager) detach(ctx context.Context, e *entry) error {
	r := e.rec
	if r.Plan == nil || !r.DetachedAt.IsZero() {
		return nil
	}
	netns := filepath.Join(m.dirs.pin(r.ID), namespace.Net)
	if !namespace.Pinned(netns) {
		netns = "" // as the CNI specification wants it; a stop never fails for this
	}
	pod := networkPod(r, netns, e.spec)
	var errs []error
	for _, i := range slices.Backward(r.attachments()) {
		errs = append(errs, m.net.Detach(ctx, pod, i))
	}
	return errors.Join(errs...)
}
