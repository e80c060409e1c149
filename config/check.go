package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// maxSocketPath is the size of sockaddr_un's path less its final NUL.
const maxSocketPath = 107

// networkName is the form that the CNI specification gives to names.
var networkName = regexp.MustCompile(`^[a-zA-Z0-9][-a-zA-Z0-9_.]*$`)

var handlerName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)

// checker collects offences, each with the file it came from.
type checker struct {
	origin map[string]string
	errs   []error
}

func (k *checker) must(ok bool, key, rule string, args ...any) {
	if ok {
		return
	}
	from := k.origin[key]
	if from == "" {
		from = "default"
	}
	k.errs = append(k.errs, fmt.Errorf("%s: %s: %s", from, key, fmt.Sprintf(rule, args...)))
}

func (k *checker) path(key, p string, mayBeEmpty bool) {
	if p == "" && mayBeEmpty {
		return
	}
	k.must(filepath.IsAbs(p) && filepath.Clean(p) == p, key, "must be an absolute path without . and .., is %q", p)
}

func (k *checker) positive(key string, v int64) {
	k.must(v > 0, key, "must be greater than 0, is %d", v)
}

// minDuration is the shortest duration that makes sense for any key. In TOML a
// number without a unit is a duration in nanoseconds.
const minDuration = time.Millisecond

func (k *checker) duration(key string, d time.Duration, mayBeZero bool) {
	rule := `must be at least %s with a unit, as in "30s"; is %s`
	if mayBeZero {
		rule = `must be 0, or at least %s with a unit, as in "30s"; is %s`
	}
	k.must(d >= minDuration || d == 0 && mayBeZero, key, rule, minDuration, d)
}

// each checks the elements of a list.
func (k *checker) each(key string, list []string, ok func(string) bool, rule string) {
	for _, s := range list {
		k.must(ok(s), key, "%s; has %q", rule, s)
	}
}

func (k *checker) oneOf(key, v string, allowed ...string) {
	k.must(slices.Contains(allowed, v), key, "must be one of %s; is %q", strings.Join(allowed, ", "), v)
}

func (c *Config) check(origin map[string]string) error {
	k := &checker{origin: origin}
	k.path("root", c.Root, false)
	k.path("run_dir", c.RunDir, false)
	k.must(c.Root != "/", "root", "must not be the root directory: what is in its directory tmp is deleted")
	k.must(c.RunDir != "/", "run_dir", "must not be the root directory")
	k.must(c.Root != c.RunDir, "run_dir", "must not be the same directory as root, is %q", c.RunDir)
	k.path("socket", c.Socket, false)
	k.must(len(c.Socket) <= maxSocketPath, "socket", "must have at most %d characters, has %d", maxSocketPath, len(c.Socket))
	k.must(c.SocketGroup == "" || isGroup(c.SocketGroup), "socket_group", "must be the name of a group or a number from 0 to %d, is %q", math.MaxInt32, c.SocketGroup)
	k.oneOf("log_level", c.LogLevel, "trace", "debug", "info", "warning", "error")
	k.oneOf("log_format", c.LogFormat, "text", "json")
	k.oneOf("cgroup_driver", c.CgroupDriver, "auto", "cgroupfs", "systemd")
	if c.CgroupParent != "" {
		if err := CheckCgroupParent(c.CgroupDriver, c.CgroupParent); err != nil {
			k.must(false, "cgroup_parent", "%v", err)
		}
	}
	c.checkCNI(k)
	c.checkImage(k)
	c.checkDefaults(k)
	c.checkStreaming(k)
	c.checkNRI(k)
	c.checkRuntimes(k)
	return errors.Join(k.errs...)
}

func (c *Config) checkCNI(k *checker) {
	k.must(len(c.CNI.ConfDirs) > 0, "cni.conf_dirs", "must name at least one directory")
	k.must(len(c.CNI.BinDirs) > 0, "cni.bin_dirs", "must name at least one directory")
	for _, d := range c.CNI.ConfDirs {
		k.path("cni.conf_dirs", d, false)
	}
	k.path("cni.conf_template", c.CNI.ConfTemplate, true)
	k.must(c.CNI.DefaultNetwork == "" || networkName.MatchString(c.CNI.DefaultNetwork), "cni.default_network", "must be the name of a network, is %q", c.CNI.DefaultNetwork)
	for _, d := range c.CNI.BinDirs {
		k.path("cni.bin_dirs", d, false)
	}
	for _, name := range c.CNI.Additional {
		k.must(networkName.MatchString(name), "cni.additional_networks", "must be names of networks, has %q", name)
	}
}

func (c *Config) checkImage(k *checker) {
	i := &c.Image
	k.path("image.registries_conf", i.RegistriesConf, true)
	k.path("image.registries_conf_dir", i.RegistriesConfDir, true)
	k.path("image.policy", i.Policy, true)
	k.path("image.policy_dir", i.PolicyDir, true)
	k.path("image.registries_d", i.RegistriesD, true)
	k.path("image.auth_file", i.AuthFile, true)
	k.positive("image.parallel_layers", int64(i.ParallelLayers))
	k.each("image.pinned", i.Pinned, isPinnedPattern, `must be full names with a tag or a digest, prefixes ending in "*", or parts between two "*"`)
	k.duration("image.progress_window", i.ProgressWindow, true)
	k.must(i.MaxLayers > 0 && i.MaxLayers <= 500, "image.max_layers", "must be 1 to 500, the bound of overlay; is %d", i.MaxLayers)
	k.positive("image.max_layer_entries", int64(i.MaxLayerEntries))
	k.positive("image.max_layer_bytes", i.MaxLayerBytes)
}

func (c *Config) checkDefaults(k *checker) {
	k.positive("pod.shm_size", c.Pod.ShmSize)
	k.each("pod.allowed_sysctls", c.Pod.AllowedSysctls, isSysctlPattern,
		`must be names or prefixes ending in "*" of sysctls that the namespaces of a pod confine: `+strings.Join(podSysctls, ", "))
	k.each("container.capabilities", c.Container.Capabilities, isCapability, "must be capabilities, as in NET_BIND_SERVICE")
	k.must(c.Container.PidsLimit >= 0 && c.Container.PidsLimit <= maxPids, "container.pids_limit", "must be from 0 to %d, is %d", maxPids, c.Container.PidsLimit)
	for _, u := range c.Container.DefaultUlimits {
		if _, err := ParseUlimit(u); err != nil {
			k.must(false, "container.default_ulimits", "%v", err)
		}
	}
	k.path("container.seccomp_profile", c.Container.SeccompProfile, true)
	k.path("container.privileged_seccomp_profile", c.Container.PrivilegedSeccompProfile, true)
	k.must(isProfileName(c.Container.AppArmorProfile), "container.apparmor_profile", "must be the name of a profile, or empty for none; is %q", c.Container.AppArmorProfile)
	for _, d := range c.Container.CDISpecDirs {
		k.path("container.cdi_spec_dirs", d, false)
	}
	k.path("container.blockio_config_file", c.Container.BlockIOConfigFile, true)
	k.path("container.rdt_config_file", c.Container.RDTConfigFile, true)
	k.path("monitor.path", c.Monitor.Path, true)
	k.path("monitor.cgroup", c.Monitor.Cgroup, true)
	k.must(c.Monitor.Cgroup != "/", "monitor.cgroup", "must not be the root cgroup")
	// A cgroup that has processes cannot limit the cgroups below it (cgroups(7), "no internal processes").
	inMonitors := c.Monitor.Cgroup != "" && strings.HasPrefix(c.CgroupParent+"/", c.Monitor.Cgroup+"/")
	k.must(!inMonitors, "monitor.cgroup", "must not contain cgroup_parent %q, is %q", c.CgroupParent, c.Monitor.Cgroup)
}

func (c *Config) checkStreaming(k *checker) {
	s := &c.Streaming
	addr, err := netip.ParseAddrPort(s.Address)
	k.must(err == nil, "streaming.address", "must be an IP address and a port, is %q", s.Address)
	k.must(err != nil || addr.Addr().IsLoopback() || s.TLSCert != "", "streaming.address", "must be a loopback address where there is no streaming.tls_cert, is %q", s.Address)
	k.duration("streaming.idle_timeout", s.IdleTimeout, true)
	k.path("streaming.tls_cert", s.TLSCert, true)
	k.path("streaming.tls_key", s.TLSKey, true)
	k.must((s.TLSCert == "") == (s.TLSKey == ""), "streaming.tls_key", "goes with streaming.tls_cert: set both or neither")
}

func (c *Config) checkNRI(k *checker) {
	n := &c.NRI
	k.path("nri.socket", n.Socket, false)
	k.must(len(n.Socket) <= maxSocketPath, "nri.socket", "must have at most %d characters, has %d", maxSocketPath, len(n.Socket))
	k.path("nri.plugin_dir", n.PluginDir, false)
	k.path("nri.plugin_config_dir", n.PluginConfigDir, false)
	k.duration("nri.registration_timeout", n.RegistrationTimeout, false)
	k.duration("nri.request_timeout", n.RequestTimeout, false)
	k.each("nri.required_plugins", n.RequiredPlugins, pluginName.MatchString, "must be names of plugins")
	k.must(n.TolerateMissing == "" || annotationKey.MatchString(n.TolerateMissing), "nri.tolerate_missing", "must be the key of an annotation, is %q", n.TolerateMissing)
	for _, kind := range n.RejectSeccomp {
		k.oneOf("nri.reject_seccomp", kind, "runtime-default", "localhost", "unconfined")
	}
	for key, set := range map[string]bool{
		"nri.reject_hooks": n.RejectHooks, "nri.reject_namespaces": n.RejectNamespaces, "nri.reject_sysctls": n.RejectSysctls,
		"nri.reject_seccomp": len(n.RejectSeccomp) > 0, "nri.required_plugins": len(n.RequiredPlugins) > 0, "nri.tolerate_missing": n.TolerateMissing != "",
	} {
		k.must(!set || n.Validator, key, "is a rule of the validator: set nri.validator")
	}
}

func (c *Config) checkRuntimes(k *checker) {
	for _, name := range sortedKeys(c.Runtimes) {
		r := c.Runtimes[name]
		table := "runtimes." + name
		k.must(handlerName.MatchString(name), table, "a handler's name is a DNS label of lower-case letters, digits, dots and hyphens")
		k.path(table+".path", r.Path, slices.Contains(BuiltinHandlers, name))
		k.path(table+".root", r.Root, false)
		k.oneOf(table+".type", r.Type, RuntimeTypeOCI, RuntimeTypeRunsc)
		k.each(table+".allowed_annotations", r.AllowedAnnotations, isAnnotationPattern, `must be keys or prefixes ending in "*"`)
		for _, o := range r.Options {
			k.must(strings.HasPrefix(o, "-"), table+".options", "each must be one option with its value, as in --debug=true; is %q", o)
		}
	}
	if c.DefaultRuntime != "" {
		known := append(sortedKeys(c.Runtimes), BuiltinHandlers...)
		k.must(slices.Contains(known, c.DefaultRuntime), "default_runtime", "must be a handler of [runtimes] or one of %s; is %q", strings.Join(BuiltinHandlers, ", "), c.DefaultRuntime)
	}
}

// BuiltinHandlers are there without configuration where their binary is found
// in the PATH; as default they are preferred in this order.
var BuiltinHandlers = []string{"crun", "runc", "runsc"}
