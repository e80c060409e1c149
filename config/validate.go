package config

import (
	"errors"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// validate returns an error that describes all invalid keys.
func (c *Config) validate(origins map[string]string) error {
	v := &validator{origins: origins}
	c.validateDaemon(v)
	c.validateCNI(v)
	c.validateImage(v)
	c.validatePod(v)
	c.validateContainer(v)
	c.validateMonitor(v)
	c.validateStreaming(v)
	c.validateNRI(v)
	c.validateTracing(v)
	c.validateMetrics(v)
	v.optionalPath("checkpoint.criu", c.Checkpoint.CRIU)
	v.require(c.Checkpoint.CRIU == "" || filepath.Base(c.Checkpoint.CRIU) == "criu", "checkpoint.criu", "must be the path of a file with the name criu, is %q", c.Checkpoint.CRIU)
	c.validateRuntimes(v)
	return errors.Join(v.errs...)
}

func (c *Config) validateDaemon(v *validator) {
	v.path("root", c.Root)
	v.path("run_dir", c.RunDir)
	v.require(c.Root != "/", "root", "must not be the root directory, because the daemon deletes the content of the subdirectory tmp")
	v.require(c.RunDir != "/", "run_dir", "must not be the root directory")
	v.require(c.Root != c.RunDir, "run_dir", "must not be the same directory as root, is %q", c.RunDir)
	v.socketPath("socket", c.Socket)
	v.socketPath("admin_socket", c.AdminSocket)
	v.require(c.AdminSocket != c.Socket, "admin_socket", "must not be the same path as socket, is %q", c.AdminSocket)
	v.require(c.SocketGroup == "" || isGroup(c.SocketGroup), "socket_group", "must be the name of a group or a number from 0 to %d, is %q", math.MaxInt32, c.SocketGroup)
	v.oneOf("log_level", c.LogLevel, "trace", "debug", "info", "warning", "error")
	v.oneOf("log_format", c.LogFormat, "text", "json")
	v.oneOf("cgroup_driver", c.CgroupDriver, CgroupDriverAuto, CgroupDriverCgroupfs, CgroupDriverSystemd)
	if c.CgroupParent != "" {
		if err := CheckCgroupParent(c.CgroupDriver, c.CgroupParent); err != nil {
			v.require(false, "cgroup_parent", "%v", err)
		}
	}
}

func (c *Config) validateCNI(v *validator) {
	v.require(len(c.CNI.ConfDirs) > 0, "cni.conf_dirs", "must name at least one directory")
	v.require(len(c.CNI.BinDirs) > 0, "cni.bin_dirs", "must name at least one directory")
	for _, d := range c.CNI.ConfDirs {
		v.path("cni.conf_dirs", d)
	}
	v.optionalPath("cni.conf_template", c.CNI.ConfTemplate)
	v.oneOf("cni.ip_preference", c.CNI.IPPreference, IPPreferenceCNI, IPPreferenceIPv4, IPPreferenceIPv6)
	v.require(c.CNI.DefaultNetwork == "" || networkName.MatchString(c.CNI.DefaultNetwork), "cni.default_network", "must be the name of a network, is %q", c.CNI.DefaultNetwork)
	for _, d := range c.CNI.BinDirs {
		v.path("cni.bin_dirs", d)
	}
	for _, name := range c.CNI.Additional {
		v.require(networkName.MatchString(name), "cni.additional_networks", "must be names of networks; has %q", name)
	}
}

func (c *Config) validateImage(v *validator) {
	i := &c.Image
	v.optionalPath("image.registries_conf", i.RegistriesConf)
	v.optionalPath("image.registries_conf_dir", i.RegistriesConfDir)
	v.optionalPath("image.policy", i.Policy)
	v.optionalPath("image.policy_dir", i.PolicyDir)
	v.optionalPath("image.registries_d", i.RegistriesD)
	v.optionalPath("image.auth_file", i.AuthFile)
	v.positive("image.parallel_layers", int64(i.ParallelLayers))
	v.elements("image.pinned", i.Pinned, isPinnedPattern, `must be full names with a tag or a digest, prefixes ending in "*", or parts between two "*"`)
	v.durationOrZero("image.progress_window", i.ProgressWindow)
	v.require(i.MaxLayers > 0 && i.MaxLayers <= 500, "image.max_layers", "must be 1 to 500, the limit of overlay; is %d", i.MaxLayers)
	v.positive("image.max_layer_entries", int64(i.MaxLayerEntries))
	v.positive("image.max_layer_bytes", i.MaxLayerBytes)
	v.positive("image.max_archive_bytes", i.MaxArchiveBytes)
	for _, d := range i.ArchiveDirs {
		v.path("image.archive_dirs", d)
	}
	v.unique("image.archive_dirs", i.ArchiveDirs)
}

func (c *Config) validatePod(v *validator) {
	v.positive("pod.shm_size", c.Pod.ShmSize)
	v.optionalPath("pod.netns_dir", c.Pod.NetNSDir)
	v.require(!isBelow(c.Pod.NetNSDir, filepath.Join(c.RunDir, "ns")), "pod.netns_dir", "must not be in the directory ns of run_dir, in which the daemon has its own files; is %q", c.Pod.NetNSDir)
	v.elements("pod.allowed_sysctls", c.Pod.AllowedSysctls, isSysctlPattern,
		`must be names of sysctls that belong to a namespace of the pod, or prefixes of such names that end in "*": `+strings.Join(podSysctls, ", "))
	for _, s := range c.Pod.DefaultSysctls {
		if _, _, err := ParseSysctl(s); err != nil {
			v.require(false, "pod.default_sysctls", "%v", err)
		}
	}
	v.uniqueNames("pod.default_sysctls", c.Pod.DefaultSysctls)
}

func (c *Config) validateContainer(v *validator) {
	v.elements("container.default_env", c.Container.DefaultEnv, isEnv, "must be of the form NAME=VALUE")
	v.uniqueNames("container.default_env", c.Container.DefaultEnv)
	for _, d := range c.Container.HooksDirs {
		v.path("container.hooks_dirs", d)
	}
	for _, d := range c.Container.AdditionalDevices {
		if _, err := ParseDevice(d); err != nil {
			v.require(false, "container.additional_devices", "%v", err)
		}
	}
	for _, p := range c.Container.RequiredHostPaths {
		v.path("container.required_host_paths", p)
	}
	v.elements("container.capabilities", c.Container.Capabilities, isCapability, "must be capabilities, as in NET_BIND_SERVICE")
	v.require(c.Container.PidsLimit >= 0 && c.Container.PidsLimit <= maxPids, "container.pids_limit", "must be from 0 to %d, is %d", maxPids, c.Container.PidsLimit)
	for _, u := range c.Container.DefaultUlimits {
		if _, err := ParseUlimit(u); err != nil {
			v.require(false, "container.default_ulimits", "%v", err)
		}
	}
	v.optionalPath("container.seccomp_profile", c.Container.SeccompProfile)
	v.optionalPath("container.privileged_seccomp_profile", c.Container.PrivilegedSeccompProfile)
	v.require(isTimezone(c.Container.Timezone), "container.timezone", "must be empty, local, or the name of a time zone, as in Europe/Berlin; is %q", c.Container.Timezone)
	v.require(isProfileName(c.Container.AppArmorProfile), "container.apparmor_profile", "must be the name of a profile, or empty; is %q", c.Container.AppArmorProfile)
	for _, d := range c.Container.CDISpecDirs {
		v.path("container.cdi_spec_dirs", d)
	}
	v.optionalPath("container.blockio_config_file", c.Container.BlockIOConfigFile)
	v.optionalPath("container.rdt_config_file", c.Container.RDTConfigFile)
}

func (c *Config) validateMonitor(v *validator) {
	v.optionalPath("monitor.path", c.Monitor.Path)
	v.optionalPath("monitor.cgroup", c.Monitor.Cgroup)
	size := c.Monitor.LogSizeMax
	v.require(size == 0 || size == -1 || size >= minLogSize, "monitor.log_size_max", "must be at least %d bytes, or 0 or -1 for no limit; is %d", minLogSize, size)
	v.require(c.Monitor.Cgroup != "/", "monitor.cgroup", "must not be the root cgroup")
	// A cgroup with processes cannot limit the cgroups below it (cgroups(7), "no internal processes").
	podsBelowMonitors := c.Monitor.Cgroup != "" && strings.HasPrefix(c.CgroupParent+"/", c.Monitor.Cgroup+"/")
	v.require(!podsBelowMonitors, "monitor.cgroup", "must not contain cgroup_parent %q, is %q", c.CgroupParent, c.Monitor.Cgroup)
}

func (c *Config) validateStreaming(v *validator) {
	s := &c.Streaming
	addr, err := netip.ParseAddrPort(s.Address)
	v.require(err == nil, "streaming.address", "must be an IP address and a port, is %q", s.Address)
	v.require(err != nil || addr.Addr().IsLoopback() || s.TLSCert != "", "streaming.address", "must be a loopback address unless streaming.tls_cert is set, is %q", s.Address)
	v.durationOrZero("streaming.idle_timeout", s.IdleTimeout)
	v.optionalPath("streaming.tls_cert", s.TLSCert)
	v.optionalPath("streaming.tls_key", s.TLSKey)
	v.require((s.TLSCert == "") == (s.TLSKey == ""), "streaming.tls_key", "must be set if and only if streaming.tls_cert is set")
	v.optionalPath("streaming.tls_client_ca", s.TLSClientCA)
	v.require(s.TLSClientCA == "" || s.TLSCert != "", "streaming.tls_client_ca", "has no effect unless streaming.tls_cert is set")
	v.oneOf("streaming.tls_min_version", s.TLSMinVersion, TLS12, TLS13)
	if _, err := CipherSuites(s.TLSCipherSuites); err != nil {
		v.require(false, "streaming.tls_cipher_suites", "%v", err)
	}
}

func (c *Config) validateNRI(v *validator) {
	n := &c.NRI
	v.socketPath("nri.socket", n.Socket)
	v.path("nri.plugin_dir", n.PluginDir)
	v.path("nri.plugin_config_dir", n.PluginConfigDir)
	v.duration("nri.registration_timeout", n.RegistrationTimeout)
	v.duration("nri.request_timeout", n.RequestTimeout)
	v.elements("nri.required_plugins", n.RequiredPlugins, pluginName.MatchString, "must be names of plugins")
	v.require(n.TolerateMissing == "" || annotationKey.MatchString(n.TolerateMissing), "nri.tolerate_missing", "must be the key of an annotation, is %q", n.TolerateMissing)
	for _, kind := range n.RejectSeccomp {
		v.oneOf("nri.reject_seccomp", kind, "runtime-default", "localhost", "unconfined")
	}
	for key, isSet := range map[string]bool{
		"nri.reject_hooks": n.RejectHooks, "nri.reject_namespaces": n.RejectNamespaces, "nri.reject_sysctls": n.RejectSysctls,
		"nri.reject_seccomp": len(n.RejectSeccomp) > 0, "nri.required_plugins": len(n.RequiredPlugins) > 0, "nri.tolerate_missing": n.TolerateMissing != "",
	} {
		v.require(!isSet || n.Validator, key, "has no effect unless nri.validator is set")
	}
}

func (c *Config) validateRuntimes(v *validator) {
	for _, name := range sortedKeys(c.Runtimes) {
		r := c.Runtimes[name]
		table := "runtimes." + name
		v.require(handlerName.MatchString(name), table, "the name of a handler must be a DNS label of lower-case letters, digits, dots and hyphens")
		if r.Path != "" || !slices.Contains(BuiltinHandlers, name) {
			v.path(table+".path", r.Path)
		}
		v.path(table+".root", r.Root)
		v.oneOf(table+".type", r.Type, RuntimeTypeOCI, RuntimeTypeRunsc)
		v.optionalPath(table+".base_spec", r.BaseSpec)
		v.optionalPath(table+".seccomp_profile", r.SeccompProfile)
		v.require(!r.NoPivot || r.Type == RuntimeTypeOCI, table+".no_pivot", "needs the type %s", RuntimeTypeOCI)
		v.require(r.PrivilegedWithoutHostDevices || !r.AllDevicesAllowed, table+".privileged_without_host_devices_all_devices_allowed",
			"has no effect unless privileged_without_host_devices is set")
		v.elements(table+".allowed_annotations", r.AllowedAnnotations, isAnnotationPattern, `must be keys or prefixes ending in "*"`)
		for _, d := range r.CNIConfDirs {
			v.path(table+".cni_conf_dirs", d)
		}
		for _, o := range r.Options {
			v.require(strings.HasPrefix(o, "-"), table+".options", "must be options with their values, as in --debug=true; has %q", o)
		}
	}
	if c.DefaultRuntime != "" {
		handlers := append(sortedKeys(c.Runtimes), BuiltinHandlers...)
		v.require(slices.Contains(handlers, c.DefaultRuntime), "default_runtime", "must be a handler of [runtimes] or one of %s; is %q", strings.Join(BuiltinHandlers, ", "), c.DefaultRuntime)
	}
}
