package network

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/criserver/criserver/sandbox/network/defaultbridge"
)

// DefaultBridge describes the default bridge.
type DefaultBridge = defaultbridge.Bridge

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
	b, err := n.defaultBridge.Claim(ctx)
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
	raw, err := n.defaultBridge.Conf(b)
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

// removeUnusedBridge deletes the recorded bridge, and its record, when pods use another default network and the last
// pod of the bridge has been removed. The caller has called beginGC, so that no pod is attached during the call.
func (n *Network) removeUnusedBridge(ctx context.Context) error {
	if n.DefaultBridge() != nil {
		return nil
	}
	return n.defaultBridge.Remove(ctx)
}

// RemoveDefaultBridge deletes the recorded bridge, and its record, if no pod is attached or being attached. The first
// pod that needs the default bridge creates it again.
func (n *Network) RemoveDefaultBridge(ctx context.Context) error {
	return n.attachments.WhileIdle(func() error { return n.defaultBridge.Remove(ctx) })
}
