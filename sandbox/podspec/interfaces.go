package podspec

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/criserver/criserver/sandbox/network"
)

// Pods request other networks than the default network with these annotations, because the CRI has no field for them.
// Both name networks that the operator lists in Node.AdditionalNetworks.
const (
	// NetworksAnnotation requests additional interfaces. Its value is a list of networks, separated by commas, each
	// optionally followed by "@" and the name of the interface. It can also be a JSON array of objects with the members
	// name, interface, mac and ips.
	NetworksAnnotation = "criserver.io/networks"
	// DefaultNetworkAnnotation names the network of eth0.
	DefaultNetworkAnnotation = "criserver.io/default-network"
)

const (
	maxInterfaces    = 8
	maxInterfaceName = 15 // the kernel's IFNAMSIZ without the final NUL
)

// interfaceRequest is a requested interface.
type interfaceRequest struct {
	Network string   `json:"name"`
	Name    string   `json:"interface"`
	MAC     string   `json:"mac"`
	IPs     []string `json:"ips"`
}

// networks parses the requests for other networks than the default network.
func (p *parser) networks() error {
	first, hasFirst := p.config.Annotations[DefaultNetworkAnnotation]
	list, hasList := p.config.Annotations[NetworksAnnotation]
	if !hasFirst && !hasList {
		return nil
	}
	if p.spec.Namespaces.HostNetwork {
		return invalid("annotations", "%q and %q must not be set for a pod with the network of the host", DefaultNetworkAnnotation, NetworksAnnotation)
	}
	if hasFirst {
		if err := p.checkNetwork(DefaultNetworkAnnotation, first); err != nil {
			return err
		}
		p.spec.DefaultNetwork = first
	}
	if !hasList {
		return nil
	}
	const field = "annotations[" + NetworksAnnotation + "]"
	requests, err := parseInterfaces(list)
	if err != nil {
		return invalid(field, "%v", err)
	}
	if len(requests) > maxInterfaces {
		return invalid(field, "requests %d interfaces, more than %d", len(requests), maxInterfaces)
	}
	for i, r := range requests {
		if err := p.checkNetwork(NetworksAnnotation, r.Network); err != nil {
			return err
		}
		if r.Name == "" {
			r.Name = fmt.Sprintf("net%d", i+1)
		}
		if err := r.check(); err != nil {
			return invalid(field, "%v", err)
		}
		if slices.ContainsFunc(p.spec.Interfaces, func(i network.Interface) bool { return i.Name == r.Name }) {
			return invalid(field, "names interface %q twice", r.Name)
		}
		p.spec.Interfaces = append(p.spec.Interfaces, network.Interface{Network: r.Network, Name: r.Name, MAC: r.MAC, IPs: r.IPs})
	}
	return nil
}

func (p *parser) checkNetwork(annotation, name string) error {
	if p.node == nil || slices.Contains(p.node.AdditionalNetworks, name) {
		return nil
	}
	return invalid("annotations["+annotation+"]", "%q is not one of the networks that pods may request (cni.additional_networks): %q",
		name, p.node.AdditionalNetworks)
}

func parseInterfaces(text string) ([]interfaceRequest, error) {
	var out []interfaceRequest
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&out); err != nil {
			return nil, fmt.Errorf("is not an array of objects with name, interface, mac and ips: %w", err)
		}
		if d.More() {
			return nil, errors.New("has data after the array")
		}
		return out, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name, ifName, _ := strings.Cut(strings.TrimSpace(part), "@")
		out = append(out, interfaceRequest{Network: name, Name: ifName})
	}
	return out, nil
}

func (r *interfaceRequest) check() error {
	invalidRune := func(r rune) bool { return !isNameRune(r) }
	reserved := []string{".", "..", "lo", "all", "default", network.IfName}
	if len(r.Name) > maxInterfaceName || strings.ContainsFunc(r.Name, invalidRune) || slices.Contains(reserved, r.Name) {
		return fmt.Errorf("has interface %q, which must have 1 to %d letters, digits, '-', '_' and '.', and must not be lo or %s", r.Name, maxInterfaceName, network.IfName)
	}
	if r.MAC != "" {
		if mac, err := net.ParseMAC(r.MAC); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return fmt.Errorf("has mac %q, which is not the Ethernet address of one interface", r.MAC)
		}
	}
	for _, ip := range r.IPs {
		_, prefixErr := netip.ParsePrefix(ip)
		if _, addrErr := netip.ParseAddr(ip); prefixErr != nil && addrErr != nil {
			return fmt.Errorf("has ips %q, which is not an address with or without a prefix length", ip)
		}
	}
	return nil
}
