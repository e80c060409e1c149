package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/criserver/criserver/internal/flock"
	"github.com/criserver/criserver/sandbox/network/bridge"
)

// The default bridge is the network of pods while the directories of the CNI configuration have no network. The daemon
// chooses the name of the bridge and the ranges, records its choice in the run directory, and keeps the choice while
// pods use the bridge. The bridge itself reserves its name and its ranges against other daemons of the host.

const (
	// claimTimeout bounds the wait for other daemons that choose their default bridge.
	claimTimeout = time.Minute
	// defaultBridgePrefix is the beginning of the name of the network. The name of the bridge follows.
	defaultBridgePrefix = "default-"
	// bridgeLock is the file that daemons lock while they choose a bridge and ranges. Tests have a /run of their own.
	bridgeLock = "/run/criserver-bridge.lock"
	// maxBridges bounds the number in the name of the bridge: cri0, cri1 and so on.
	maxBridges = 64
	// maxAlias is the maximum length of the alias of an interface in bytes. The kernel allows one more.
	maxAlias = 254
)

// DefaultBridge describes the default bridge.
type DefaultBridge struct {
	Bridge string         `json:"bridge"` // the name of the interface
	Ranges []netip.Prefix `json:"ranges"` // of the addresses of pods
}

// network returns the name of the network. It contains the name of the bridge, because the names of nftables tables
// contain the name of the network, and each daemon needs its own tables.
func (d DefaultBridge) network() string { return defaultBridgePrefix + d.Bridge }

// gateways returns the addresses of the bridge.
func (d DefaultBridge) gateways() []netip.Prefix {
	out := make([]netip.Prefix, len(d.Ranges))
	for i, r := range d.Ranges {
		out[i] = netip.PrefixFrom(r.Addr().Next(), r.Bits())
	}
	return out
}

// DefaultBridge returns the default bridge, or nil while pods are attached to another default network.
func (n *Network) DefaultBridge() *DefaultBridge {
	if l := n.loaded.Load().list; l != nil {
		return l.defaultBridge
	}
	return nil
}

// addDefaultBridge makes the default bridge the default network if the configuration has no network. A configuration
// that cannot be read, or in which a network is named that does not exist, has an error, which the operator must see.
func (n *Network) addDefaultBridge(ctx context.Context, cfg *Config, d *loaded) {
	if !d.empty || !cfg.DefaultBridge || cfg.DefaultNetwork != "" || cfg.ConfTemplate != "" {
		return
	}
	b, err := n.claimBridge(ctx)
	var l *list
	if err == nil {
		l, err = n.bridgeList(b)
	}
	if err != nil {
		d.retry, d.err = true, fmt.Errorf("default bridge: %w: %w", err, errdefs.ErrUnavailable)
		return
	}
	l.defaultBridge, d.list, d.err = &b, l, nil
}

// bridgeList returns the network of the default bridge.
func (n *Network) bridgeList(b DefaultBridge) (*list, error) {
	type entry = map[string]any
	var ranges [][]entry
	var routes []entry
	for _, family := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		var set []entry // a pod gets one address of each set
		for _, r := range b.Ranges {
			if r.Addr().Is4() == family.Addr().Is4() {
				set = append(set, entry{"subnet": r.String()})
			}
		}
		if set != nil {
			ranges, routes = append(ranges, set), append(routes, entry{"dst": family.String()})
		}
	}
	raw, err := json.Marshal(entry{"cniVersion": "1.1.0", "name": b.network(), "plugins": []entry{
		{
			"type": builtinPlugin, "bridge": b.Bridge, "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "hairpinMode": true,
			"ipam": entry{"type": "host-local", "dataDir": filepath.Join(n.stateDir(), "ipam"), "ranges": ranges, "routes": routes},
		},
		{"type": "portmap", "backend": "nftables", "snat": true, "capabilities": entry{"portMappings": true}},
	}})
	if err != nil {
		return nil, err
	}
	conf, err := libcni.NetworkConfFromBytes(raw)
	if err != nil {
		return nil, err
	}
	if raw, err = inline(conf); err != nil {
		return nil, err
	}
	return parseList(raw)
}

// claimBridge returns the recorded default bridge if it is still valid, and otherwise chooses and creates one.
func (n *Network) claimBridge(ctx context.Context) (DefaultBridge, error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	lock, err := flock.Open(ctx, bridgeLock)
	if err != nil {
		return DefaultBridge{}, err
	}
	defer lock.Close()
	recorded, err := n.recordedBridge(ctx)
	if err != nil {
		return DefaultBridge{}, err
	}
	cidrs, err := n.recordedPodCIDR()
	if err != nil {
		return DefaultBridge{}, err
	}
	next, err := n.chooseBridge(recorded, cidrs)
	if err != nil {
		return DefaultBridge{}, err
	}
	if err := n.replaceBridge(recorded, next); err != nil {
		return DefaultBridge{}, err
	}
	return next, bridge.Claim(next.Bridge, n.bridgeOwner(), next.gateways())
}

// chooseBridge decides about the name and the ranges. A pod CIDR of the kubelet has priority over the recorded ranges,
// unless both overlap and pods use the recorded ranges: a gateway must not change then. Detach of the last pod makes
// Run decide again.
// The recorded ranges stay while pods use them, and otherwise as long as nothing else on the host uses them.
func (n *Network) chooseBridge(recorded *DefaultBridge, cidrs []netip.Prefix) (DefaultBridge, error) {
	if recorded != nil {
		owner, exists, err := bridge.Owner(recorded.Bridge)
		if err != nil {
			return DefaultBridge{}, err
		}
		if exists && owner != "" && owner != n.bridgeOwner() {
			recorded = nil // the bridge of another daemon
		}
	}
	var next DefaultBridge
	if recorded != nil {
		next = *recorded
	} else {
		name, err := freeBridgeName()
		if err != nil {
			return DefaultBridge{}, err
		}
		next.Bridge = name
	}
	ipv6, inUse := hasIPv6(), len(next.Ranges) > 0 && n.attachments.inUse(next.network())
	usable := usableCIDRs(cidrs, ipv6)
	switch {
	case len(usable) > 0 && !(inUse && conflict(usable, next.Ranges)):
		next.Ranges = usable
		return next, nil
	case inUse:
		return next, nil
	}
	used, err := usedPrefixes(next.Bridge)
	if err != nil {
		return DefaultBridge{}, err
	}
	if used = append(used, cidrs...); len(next.Ranges) > 0 && !anyOverlaps(next.Ranges, used) {
		return next, nil
	}
	if ipv6 {
		needed, err := needsAdvertisements()
		if err != nil {
			return DefaultBridge{}, err
		}
		ipv6 = !needed
	}
	next.Ranges, err = chooseRanges(used, ipv6)
	return next, err
}

// freeBridgeName returns the first name of the form cri0, cri1, … that no interface has.
func freeBridgeName() (string, error) {
	for i := range maxBridges {
		name := fmt.Sprintf("cri%d", i)
		if _, exists, err := bridge.Owner(name); err != nil || !exists {
			return name, err
		}
	}
	return "", fmt.Errorf("the interfaces cri0 to cri%d exist", maxBridges-1)
}
