package network

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/criserver/criserver/sandbox/network/bridge"
)

// findPlugins searches for the binaries of the plugins of a list, except those whose work the daemon does itself. It
// searches every time, because plugins can be installed without a change of the configuration.
func (n *Network) findPlugins(l *list) error {
	var types []string
	for _, p := range l.conf.Plugins {
		if n.isBuiltin(l, p) {
			continue
		}
		types = append(types, p.Network.Type)
		if p.Network.IPAM.Type != "" {
			types = append(types, p.Network.IPAM.Type)
		}
	}
	for _, t := range types {
		if n.installed(t) {
			continue
		}
		if l.defaultBridge != nil {
			return fmt.Errorf("the default bridge needs nftables (nft) or the CNI plugin %q, which is not in %s: install one of them: %w",
				t, strings.Join(n.cfg().BinDirs, ", "), errdefs.ErrUnavailable)
		}
		return fmt.Errorf("CNI plugin %q of network %q (%s) is not in %s: install it there: %w",
			t, l.conf.Name, l.file, strings.Join(n.cfg().BinDirs, ", "), errdefs.ErrUnavailable)
	}
	return nil
}

// installed reports whether the binary of a plugin exists.
func (n *Network) installed(plugin string) bool {
	_, err := invoke.FindInPath(plugin, n.cfg().BinDirs)
	return err == nil
}

// isBuiltin reports whether the daemon does all work of a plugin of a loaded network itself.
func (n *Network) isBuiltin(l *list, p *libcni.PluginConfig) bool {
	if n.cfg().NoBuiltin {
		return false
	}
	switch p.Network.Type {
	case builtinPlugin:
		// libcni adds these fields to the configuration of each call.
		conf, err := libcni.InjectConf(p, map[string]any{"name": l.conf.Name, "cniVersion": l.conf.CNIVersion})
		return err == nil && bridge.Handles(conf.Bytes)
	case "portmap":
		return l.hostPorts != nil
	}
	return false
}

// executable returns the configuration of a loaded network for STATUS and GC. The list lacks the plugin portmap if
// the daemon maps the host ports and the plugin is not installed. An installed plugin also takes part, because it may
// have to remove the host ports of pods that were attached with cni.builtin = false.
func (n *Network) executable(l *list) *libcni.NetworkConfigList {
	if l.hostPorts == nil || n.installed("portmap") {
		return l.conf
	}
	shorter, err := l.without(func(p *libcni.PluginConfig) bool { return p.Network.Type == "portmap" })
	if err != nil {
		return l.conf
	}
	return shorter.conf
}
