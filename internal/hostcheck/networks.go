package hostcheck

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// networkFile is a file with a CNI network.
type networkFile struct {
	path string
	Network
}

// checkNetworks parses all files with CNI networks, also those that the daemon does not use.
func checkNetworks(c *checker) {
	files, invalid := c.networkFiles()
	if len(files) == 0 {
		if c.DefaultBridge && c.DefaultNetwork == "" && !invalid {
			c.report("network.default_bridge", "there is no CNI network in %s", strings.Join(c.CNIConfDirs, ", "))
		} else {
			c.report("network.none", "there is no valid CNI network in %s", strings.Join(c.CNIConfDirs, ", "))
		}
		return
	}
	if c.DefaultNetwork != "" && !slices.ContainsFunc(files, func(f networkFile) bool { return f.Name == c.DefaultNetwork }) {
		c.report("network.none", "there is no CNI network %q in %s", c.DefaultNetwork, strings.Join(c.CNIConfDirs, ", "))
	}
	names := make(map[string]string)
	for _, f := range files {
		if first := names[f.Name]; first != "" {
			c.report("network.duplicate", "%s and %s have the same network name %q", first, f.path, f.Name)
			continue
		}
		names[f.Name] = f.path
		c.checkPlugins(f)
		c.checkSubnets(f)
	}
}

// networkFiles returns the valid files, in the order in which the daemon reads them, and whether
// there are invalid files.
func (c *checker) networkFiles() (files []networkFile, invalid bool) {
	for _, dir := range c.CNIConfDirs {
		entries, err := os.ReadDir(c.host.path(dir)) // sorted
		if err != nil {
			continue // the daemon creates the directory
		}
		for _, e := range entries {
			if !slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(e.Name())) || e.IsDir() {
				continue
			}
			path := filepath.Join(dir, e.Name())
			n, err := c.ParseNetwork(c.host.path(path))
			if err != nil {
				c.report("network.invalid", "%v", err)
				invalid = true
				continue
			}
			files = append(files, networkFile{path, n})
		}
	}
	return files, invalid
}

func (c *checker) checkPlugins(f networkFile) {
	for _, plugin := range f.Plugins {
		found := slices.ContainsFunc(c.CNIBinDirs, func(dir string) bool { return c.host.isExecutable(filepath.Join(dir, plugin)) })
		switch {
		case found:
		case slices.Contains([]string{"bridge", "host-local", "portmap", "loopback"}, plugin):
			c.report("network.builtin_plugin", "the CNI plugin %s of the network %q is not in %s", plugin, f.Name, strings.Join(c.CNIBinDirs, ", "))
		default:
			c.report("network.plugin", "the CNI plugin %s of the network %q is not in %s", plugin, f.Name, strings.Join(c.CNIBinDirs, ", "))
		}
	}
}

// checkSubnets compares the ranges of a network with the routes of the host, except for the routes
// of the network's own bridges.
func (c *checker) checkSubnets(f networkFile) {
	for _, subnet := range f.Subnets {
		prefix, err := netip.ParsePrefix(subnet)
		if err != nil {
			continue // the plugin reports it
		}
		for _, r := range c.routes() {
			if r.prefix.Bits() > 0 && r.prefix.Overlaps(prefix) && !slices.Contains(f.Bridges, r.device) {
				c.report("network.overlap", "the range %s of the network %q overlaps with the route to %s through %s", subnet, f.Name, r.prefix, r.device)
				break
			}
		}
	}
}

// route is a route of the host.
type route struct {
	prefix netip.Prefix
	device string
}

// routes returns the routes of the main tables.
func (c *checker) routes() (routes []route) {
	v4, _ := c.host.read("/proc/net/route")
	for line := range strings.Lines(v4) {
		// Iface Destination Gateway Flags RefCnt Use Metric Mask …; addresses are in host byte order.
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		dst, err1 := strconv.ParseUint(f[1], 16, 32)
		mask, err2 := strconv.ParseUint(f[7], 16, 32)
		if err1 != nil || err2 != nil {
			continue // the header
		}
		routes = append(routes, route{netip.PrefixFrom(hostOrder(uint32(dst)), ones(hostOrder(uint32(mask)))), f[0]})
	}
	v6, _ := c.host.read("/proc/net/ipv6_route")
	for line := range strings.Lines(v6) {
		// destination, prefix length, source, its prefix length, next hop, metric, count, use, flags, device
		f := strings.Fields(line)
		if len(f) < 10 {
			continue
		}
		dst, err1 := hex.DecodeString(f[0])
		bits, err2 := strconv.ParseUint(f[1], 16, 8)
		addr, ok := netip.AddrFromSlice(dst)
		if err1 != nil || err2 != nil || !ok || bits > 128 || addr.IsLinkLocalUnicast() || addr.IsMulticast() || f[9] == "lo" {
			continue
		}
		routes = append(routes, route{netip.PrefixFrom(addr, int(bits)), f[9]})
	}
	return routes
}

// hostOrder returns the address of a number that the kernel prints in the byte order of the host.
func hostOrder(n uint32) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// ones returns the length of a network mask.
func ones(mask netip.Addr) (n int) {
	for _, b := range mask.As4() {
		for ; b&0x80 != 0; b <<= 1 {
			n++
		}
	}
	return n
}

func checkForwarding(c *checker) {
	if on, ok := c.host.sysctl("net.ipv4.ip_forward"); ok && on == 0 {
		c.report("network.ip_forward", "net.ipv4.ip_forward is 0")
	}
	if on, ok := c.host.sysctl("net.bridge.bridge-nf-call-iptables"); !ok || on == 0 {
		c.report("network.bridge_nf", "bridged traffic does not pass through iptables: net.bridge.bridge-nf-call-iptables is not 1")
	}
	if filter, ok := c.host.sysctl("net.ipv4.conf.all.rp_filter"); ok && filter == 1 {
		c.report("network.rp_filter", "net.ipv4.conf.all.rp_filter is 1")
	}
}

// checkFirewalls looks for services that delete the rules of other programs when they are reloaded.
func checkFirewalls(c *checker) {
	running := c.host.processes()
	if running["firewalld"] {
		c.report("network.firewall", "firewalld is running")
	}
	wants, err := filepath.Glob(c.host.path("/etc/systemd/system/*.wants/nftables.service"))
	if err == nil && len(wants) > 0 {
		c.report("network.nftables_service", "nftables.service is enabled")
	}
	if conf, ok := c.host.read("/etc/ufw/ufw.conf"); ok && strings.Contains(conf, "ENABLED=yes") {
		c.report("network.firewall", "ufw is enabled")
	}
}
