// Package defaultbridge owns the default bridge, which is the network of pods while the directories of the CNI
// configuration have no network. A Store chooses the name of the bridge and the ranges, records the choice, and keeps
// the choice while pods use the bridge. The bridge itself reserves its name and its ranges against other daemons of
// the host. Package defaultbridge attaches no pods.
package defaultbridge

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/criserver/criserver/internal/flock"
	"github.com/criserver/criserver/sandbox/network/bridge"
)

const (
	// claimTimeout bounds the wait for other daemons that choose their default bridge.
	claimTimeout = time.Minute
	// prefix is the beginning of the name of the network. The name of the bridge follows.
	prefix = "default-"
	// bridgeLock is the file that daemons lock while they choose a bridge and ranges.
	bridgeLock = "/run/criserver-bridge.lock"
	// maxBridges bounds the number in the name of the bridge: cri0, cri1 and so on.
	maxBridges = 64
	// maxAlias is the maximum length of the alias of an interface in bytes. The kernel allows one more.
	maxAlias = 254
)

// Bridge describes a default bridge.
type Bridge struct {
	Bridge string         `json:"bridge"` // the name of the interface
	Ranges []netip.Prefix `json:"ranges"` // of the addresses of pods
}

// Network returns the name of the network. It contains the name of the bridge, because the names of nftables tables
// contain the name of the network, and each daemon needs its own tables.
func (b Bridge) Network() string { return prefix + b.Bridge }

// IsNetwork reports whether a name has the form of the name of a network of a default bridge.
func IsNetwork(name string) bool { return strings.HasPrefix(name, prefix) }

// gateways returns the addresses of the bridge.
func (b Bridge) gateways() []netip.Prefix {
	out := make([]netip.Prefix, len(b.Ranges))
	for i, r := range b.Ranges {
		out[i] = netip.PrefixFrom(r.Addr().Next(), r.Bits())
	}
	return out
}

// Pods has the networks of the pods.
type Pods interface {
	// InUse reports whether a pod is, or may be, attached to a network.
	InUse(network string) bool
	// WhileIdle calls fn, and attaches no pod during the call. If a pod is being attached, WhileIdle does not call fn
	// and returns nil.
	WhileIdle(fn func() error) error
}

// Store is the default bridge of one daemon.
type Store struct {
	dir  string
	pods Pods
}

// New returns a Store that keeps the record and the leases of the bridge in a directory. Two daemons must not use the
// same directory.
func New(dir string, pods Pods) *Store { return &Store{dir, pods} }

// Dir returns the directory with the record and the leases.
func (s *Store) Dir() string { return s.dir }

// Claim returns the recorded default bridge if it is still valid, and otherwise chooses and creates one.
func (s *Store) Claim(ctx context.Context) (Bridge, error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	lock, err := flock.Open(ctx, bridgeLock)
	if err != nil {
		return Bridge{}, err
	}
	defer lock.Close()
	recorded, err := s.recordedBridge(ctx)
	if err != nil {
		return Bridge{}, err
	}
	cidrs, err := s.recordedPodCIDR()
	if err != nil {
		return Bridge{}, err
	}
	next, err := s.chooseBridge(recorded, cidrs)
	if err != nil {
		return Bridge{}, err
	}
	if err := s.replaceBridge(recorded, next); err != nil {
		return Bridge{}, err
	}
	return next, bridge.Claim(next.Bridge, s.owner(), next.gateways())
}

// chooseBridge decides about the name and the ranges. A pod CIDR of the kubelet has priority over the recorded ranges,
// unless both overlap and pods use the recorded ranges: a gateway must not change then. Detach of the last pod makes
// Run decide again.
// The recorded ranges stay while pods use them, and otherwise as long as nothing else on the host uses them.
func (s *Store) chooseBridge(recorded *Bridge, cidrs []netip.Prefix) (Bridge, error) {
	if recorded != nil {
		owner, exists, err := bridge.Owner(recorded.Bridge)
		if err != nil {
			return Bridge{}, err
		}
		if exists && owner != "" && owner != s.owner() {
			recorded = nil // the bridge of another daemon
		}
	}
	var next Bridge
	if recorded != nil {
		next = *recorded
	} else {
		name, err := freeBridgeName()
		if err != nil {
			return Bridge{}, err
		}
		next.Bridge = name
	}
	ipv6, inUse := hasIPv6(), len(next.Ranges) > 0 && s.pods.InUse(next.Network())
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
		return Bridge{}, err
	}
	if used = append(used, cidrs...); len(next.Ranges) > 0 && !anyOverlaps(next.Ranges, used) {
		return next, nil
	}
	if ipv6 {
		needed, err := needsAdvertisements()
		if err != nil {
			return Bridge{}, err
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
