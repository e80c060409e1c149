package network

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
)

// Details describe a network for users: a loaded network, or the network that a pod was attached to.
type Details struct {
	Name       string
	CNIVersion string
	// File is the configuration file. It is "" for the default bridge, and for the network of a pod that is not
	// configured any more.
	File string
	// IsDefault says that new pods are attached to the network. IsAdditional says that pods may ask for the network. Both
	// are false for the default network of a runtime handler.
	IsDefault, IsAdditional bool
	// IsDefaultBridge says that the daemon has chosen the network because there is no configuration file.
	IsDefaultBridge bool
	Plugins         []PluginDetails

	// Bridge is the bridge of the pods, or "" if the network has no bridge. The fields below belong to the plugin that
	// attaches the pods, whether the daemon executes the plugin or does its work.
	Bridge  string
	VLAN    int  // the VLAN of the bridge ports; 0 if the ports are untagged
	MTU     int  // in bytes; 0 if the kernel chooses the MTU
	Gateway bool // the bridge has the addresses of the gateways
	Subnets []netip.Prefix
	// LeaseDir is the directory with a file for each leased address, or "" if the addresses do not come from host-local.
	LeaseDir string

	// Masquerade and HostPorts say how the network translates addresses. For the network of a pod, HostPorts is for the
	// host ports of this pod, and is NATNone if the pod has no host port.
	Masquerade, HostPorts NAT
	// Localhost says that the daemon maps host ports on 127.0.0.1, too.
	Localhost bool
	// Bandwidth says that the network has the plugin bandwidth with the capability of the same name.
	Bandwidth bool
	// Firewall says that the network has the plugin firewall, which accepts forwarded packets of the pods.
	Firewall bool
}

// NAT describes the maker of the rules that translate addresses.
type NAT struct {
	By NATMaker
	// Table is the nftables table of family inet that the daemon owns, or "" for another maker.
	Table string
}

// NATMaker makes rules that translate addresses.
type NATMaker string

// The makers of rules. NATPlugin lets the plugin choose; the others name the program whose rules the kernel has.
const (
	NATNone           NATMaker = ""
	NATDaemon         NATMaker = "criserver"
	NATPlugin         NATMaker = "plugin"
	NATPluginNFTables NATMaker = "plugin (nftables)"
	NATPluginIPTables NATMaker = "plugin (iptables)"
)

// PluginDetails describe a plugin of a network for users.
type PluginDetails struct {
	Type string
	IPAM string // the type of the IPAM plugin, or ""
	// Builtin says that the daemon does the work of the plugin itself. Path is the binary of an executed plugin; "" if
	// the binary is not installed.
	Builtin bool
	Path    string
}

// Networks returns the details of the loaded networks, the default network first.
func (n *Network) Networks() []Details {
	loaded := n.loaded.Load()
	var out []Details
	for _, l := range loaded.all() {
		d := n.details(l)
		d.File, d.IsDefault, d.IsAdditional, d.IsDefaultBridge = l.file, l == loaded.list, l == loaded.additional[d.Name], l.defaultBridge != nil
		out = append(out, d)
	}
	return out
}

// PlanDetails returns the details of the network of an interface as the pod was attached, even if the configuration
// has changed.
func (n *Network) PlanDetails(i Interface) (Details, error) {
	l, err := parseList(i.Plan)
	if err != nil {
		return Details{}, err
	}
	d := n.details(l)
	for _, loaded := range n.Networks() {
		if loaded.Name == d.Name {
			d.File, d.IsDefault, d.IsAdditional, d.IsDefaultBridge = loaded.File, loaded.IsDefault, loaded.IsAdditional, loaded.IsDefaultBridge
		}
	}
	return d, nil
}

// ResultFile returns the file in which the CNI library keeps the result of ADD.
func (n *Network) ResultFile(pod, network, ifName string) string {
	return filepath.Join(cmp.Or(n.cfg().CacheDir, libcni.CacheDir), "results", network+"-"+pod+"-"+ifName)
}

// attachConf has the options of the plugins that matter for the details.
type attachConf struct {
	bridgeConf
	Bridge    string `json:"bridge"`
	IsGateway bool   `json:"isGateway"`
	IsDefault bool   `json:"isDefaultGateway"`
	VLAN      int    `json:"vlan"`
	MTU       int    `json:"mtu"`
	IPAM      struct {
		DataDir string     `json:"dataDir"`
		Type    string     `json:"type"`
		Subnet  string     `json:"subnet"`
		Ranges  [][]subnet `json:"ranges"`
	} `json:"ipam"`
}

func (n *Network) details(l *list) Details {
	d := Details{Name: l.conf.Name, CNIVersion: l.conf.CNIVersion}
	for _, p := range l.conf.Plugins {
		plugin := PluginDetails{Type: p.Network.Type, IPAM: p.Network.IPAM.Type, Builtin: n.isBuiltin(l, p)}
		if !plugin.Builtin {
			plugin.Path, _ = invoke.FindInPath(plugin.Type, n.cfg().BinDirs) // "" if it is not installed
		}
		d.Plugins = append(d.Plugins, plugin)
		d.addPlugin(p)
	}
	if l.masquerade != nil {
		d.Masquerade = NAT{NATDaemon, l.masquerade.Table}
	}
	if l.hostPorts != nil {
		d.HostPorts, d.Localhost = NAT{NATDaemon, l.hostPorts.Table}, l.hostPorts.SNAT
	}
	return d
}

// addPlugin adds the configuration of a plugin.
func (d *Details) addPlugin(p *libcni.PluginConfig) {
	switch p.Network.Type {
	case "portmap":
		var c struct {
			Backend string `json:"backend"`
		}
		_ = json.Unmarshal(p.Bytes, &c) // the plugin has parsed the same text
		if p.Network.Capabilities["portMappings"] {
			d.HostPorts = NAT{By: pluginNAT(c.Backend)}
		}
	case "bandwidth":
		d.Bandwidth = p.Network.Capabilities["bandwidth"]
	case "firewall":
		d.Firewall = true
	}
	var c attachConf
	if p.Network.IPAM.Type == "" || json.Unmarshal(p.Bytes, &c) != nil {
		return
	}
	if c.IPMasq {
		d.Masquerade = NAT{By: pluginNAT(c.Backend)}
	}
	d.MTU, d.Subnets = c.MTU, c.subnets()
	if c.IPAM.Type == "host-local" {
		d.LeaseDir = filepath.Join(cmp.Or(c.IPAM.DataDir, "/var/lib/cni/networks"), d.Name)
	}
	if p.Network.Type == "bridge" {
		d.Bridge, d.VLAN, d.Gateway = cmp.Or(c.Bridge, "cni0"), c.VLAN, c.IsGateway || c.IsDefault
	}
}

func (c attachConf) subnets() []netip.Prefix {
	sets := c.IPAM.Ranges
	if c.IPAM.Subnet != "" {
		sets = append(sets, []subnet{{c.IPAM.Subnet}})
	}
	var out []netip.Prefix
	for _, s := range slices.Concat(sets...) {
		if prefix, err := netip.ParsePrefix(s.Subnet); err == nil {
			out = append(out, prefix.Masked())
		}
	}
	return out
}

func pluginNAT(backend string) NATMaker {
	switch backend {
	case "nftables":
		return NATPluginNFTables
	case "iptables":
		return NATPluginIPTables
	}
	return NATPlugin
}
