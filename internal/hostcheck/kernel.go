package hostcheck

import (
	"fmt"
	"strings"
)

// version is a version of the kernel, without patches and suffixes.
type version struct{ major, minor int }

func (v version) before(o version) bool {
	return v.major < o.major || v.major == o.major && v.minor < o.minor
}

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

var (
	minKernel    = version{5, 15}
	idmapOverlay = version{5, 19} // mounts with mapped IDs of overlay layers
	idmapTmpfs   = version{6, 3}  // and of tmpfs
)

// kernelVersion returns the version of the kernel, or false if the release has another format.
func (c *checker) kernelVersion() (v version, ok bool) {
	n, err := fmt.Sscanf(c.host.Kernel.Release(), "%d.%d", &v.major, &v.minor)
	return v, err == nil && n == 2
}

func checkKernelVersion(c *checker) {
	if v, ok := c.kernelVersion(); ok && v.before(minKernel) {
		c.report("kernel.version", "the kernel %s is older than %s", c.host.Kernel.Release(), minKernel)
	}
}

func checkSystemCalls(c *checker) {
	if missing := c.host.Kernel.Missing(); len(missing) > 0 {
		c.report("kernel.syscalls", "the kernel does not have the system calls %s", strings.Join(missing, ", "))
	}
}

// modules are the kernel modules that the daemon and its networks use, with their option in the
// configuration of the kernel.
var modules = []struct{ id, name, option string }{
	{"kernel.overlay", "overlay", "CONFIG_OVERLAY_FS"},
	{"kernel.network", "bridge", "CONFIG_BRIDGE"},
	{"kernel.network", "veth", "CONFIG_VETH"},
	{"kernel.network", "nf_tables", "CONFIG_NF_TABLES"},
	{"kernel.network", "nft_chain_nat", "CONFIG_NFT_NAT"},
	{"kernel.network", "nft_masq", "CONFIG_NFT_MASQ"},
	{"kernel.network", "nf_conntrack", "CONFIG_NF_CONNTRACK"},
	{"kernel.br_netfilter", "br_netfilter", "CONFIG_BRIDGE_NETFILTER"},
	{"kernel.vxlan", "vxlan", "CONFIG_VXLAN"},
}

func checkModules(c *checker) {
	index := c.moduleIndex()
	for _, m := range modules {
		switch index.find(m.name, m.option) {
		case moduleMissing:
			c.report(m.id, "the kernel has neither the feature nor the module %s", m.name)
		case moduleUnknown:
			c.report("kernel.unknown", "neither the list of modules nor the configuration of the kernel %s can be read", c.host.Kernel.Release())
			return
		}
	}
}

// moduleIndex contains the modules of the running kernel.
type moduleIndex struct {
	host    Host
	builtin string // modules.builtin, or ""
	dep     string // modules.dep, or ""
	config  string // the configuration of the kernel, or ""
}

const (
	moduleFound = iota
	moduleMissing
	moduleUnknown
)

func (c *checker) moduleIndex() moduleIndex {
	i, release := moduleIndex{host: c.host}, c.host.Kernel.Release()
	for _, dir := range []string{"/lib/modules/", "/usr/lib/modules/"} {
		if dep, ok := c.host.read(dir + release + "/modules.dep"); ok {
			i.dep = dep
			i.builtin, _ = c.host.read(dir + release + "/modules.builtin")
			break
		}
	}
	var ok bool
	if i.config, ok = c.host.read("/proc/config.gz"); !ok {
		i.config, _ = c.host.read("/boot/config-" + release)
	}
	return i
}

// find says whether a module is loaded, can be loaded, or is part of the kernel.
func (i moduleIndex) find(name, option string) int {
	if i.host.exists("/sys/module/"+name) || contains(i.builtin, name) || contains(i.dep, name) {
		return moduleFound
	}
	if i.config != "" {
		for line := range strings.Lines(i.config) {
			if line = strings.TrimSpace(line); line == option+"=y" || line == option+"=m" && i.dep == "" {
				return moduleFound
			}
		}
		return moduleMissing
	}
	if i.dep == "" {
		return moduleUnknown
	}
	return moduleMissing
}

// contains reports whether a list of modules has the file of a module. The file can be compressed.
func contains(list, name string) bool {
	for _, spelling := range []string{name, strings.ReplaceAll(name, "_", "-")} {
		if strings.Contains(list, "/"+spelling+".ko") {
			return true
		}
	}
	return false
}

func checkNamespaces(c *checker) {
	for _, ns := range []string{"net", "ipc", "uts", "pid", "mnt", "cgroup"} {
		if !c.host.exists("/proc/self/ns/" + ns) {
			c.report("kernel.namespaces", "the kernel has no %s namespaces", ns)
		}
	}
	if !c.host.exists("/proc/self/ns/user") {
		c.report("kernel.user_namespaces", "the kernel has no user namespaces")
	}
	if !c.host.exists("/proc/self/ns/time") {
		c.report("kernel.time_namespaces", "the kernel has no time namespaces")
	}
}

func checkIDMappedMounts(c *checker) {
	v, ok := c.kernelVersion()
	if !ok || !c.host.exists("/proc/self/ns/user") {
		return
	}
	switch {
	case v.before(idmapOverlay):
		c.report("kernel.idmapped_mounts", "the kernel %s cannot map the IDs of overlay layers, which came with %s", c.host.Kernel.Release(), idmapOverlay)
	case v.before(idmapTmpfs):
		c.report("kernel.idmapped_mounts", "the kernel %s cannot map the IDs of tmpfs, which came with %s", c.host.Kernel.Release(), idmapTmpfs)
	}
}
