package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
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

func (k *checker) oneOf(key, v string, allowed ...string) {
	k.must(slices.Contains(allowed, v), key, "must be one of %s; is %q", strings.Join(allowed, ", "), v)
}

func (c *Config) check(origin map[string]string) error {
	k := &checker{origin: origin}
	k.path("root", c.Root, false)
	k.path("run_dir", c.RunDir, false)
	k.path("socket", c.Socket, false)
	k.must(len(c.Socket) <= maxSocketPath, "socket", "must have at most %d characters, has %d", maxSocketPath, len(c.Socket))
	_, err := logrus.ParseLevel(c.LogLevel)
	k.must(err == nil, "log_level", "must be one of trace, debug, info, warning, error; is %q", c.LogLevel)
	k.oneOf("log_format", c.LogFormat, "text", "json")
	k.oneOf("cgroup_driver", c.CgroupDriver, "auto", "cgroupfs", "systemd")
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
	k.must(i.ProgressWindow >= 0, "image.progress_window", "must not be negative, is %s", i.ProgressWindow)
	k.must(i.MaxLayers > 0 && i.MaxLayers <= 500, "image.max_layers", "must be 1 to 500, the bound of overlay; is %d", i.MaxLayers)
	k.positive("image.max_layer_entries", int64(i.MaxLayerEntries))
	k.positive("image.max_layer_bytes", i.MaxLayerBytes)
}

func (c *Config) checkDefaults(k *checker) {
	k.positive("pod.shm_size", c.Pod.ShmSize)
	k.path("container.seccomp_profile", c.Container.SeccompProfile, true)
	k.path("container.privileged_seccomp_profile", c.Container.PrivilegedSeccompProfile, true)
	k.must(!strings.ContainsAny(c.Container.AppArmorProfile, " \t\n"), "container.apparmor_profile", "must be the name of a profile, is %q", c.Container.AppArmorProfile)
	for _, d := range c.Container.CDISpecDirs {
		k.path("container.cdi_spec_dirs", d, false)
	}
	k.path("container.blockio_config_file", c.Container.BlockIOConfigFile, true)
	k.path("container.rdt_config_file", c.Container.RDTConfigFile, true)
	k.path("monitor.path", c.Monitor.Path, true)
	k.path("monitor.cgroup", c.Monitor.Cgroup, true)
	k.must(c.Monitor.Cgroup != "/", "monitor.cgroup", "must not be the root cgroup")
}

func (c *Config) checkStreaming(k *checker) {
	s := &c.Streaming
	addr, err := netip.ParseAddrPort(s.Address)
	k.must(err == nil, "streaming.address", "must be an IP address and a port, is %q", s.Address)
	k.must(err != nil || addr.Addr().IsLoopback() || s.TLSCert != "", "streaming.address", "must be a loopback address where there is no streaming.tls_cert, is %q", s.Address)
	k.must(s.IdleTimeout >= 0, "streaming.idle_timeout", "must not be negative, is %s", s.IdleTimeout)
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
	k.must(n.RegistrationTimeout > 0, "nri.registration_timeout", "must be greater than 0, is %s", n.RegistrationTimeout)
	k.must(n.RequestTimeout > 0, "nri.request_timeout", "must be greater than 0, is %s", n.RequestTimeout)
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
