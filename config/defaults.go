package config

import (
	"path/filepath"
	"time"
)

// DefaultFile is the main configuration file if no other file is named. It need not exist.
const DefaultFile = "/etc/criserver/criserver.toml"

// DefaultAppArmorProfile is the name of the AppArmor profile that the daemon loads itself.
const DefaultAppArmorProfile = "criserver-default"

// The cgroup drivers.
const (
	CgroupDriverAuto     = "auto" // systemd if possible, otherwise cgroupfs
	CgroupDriverCgroupfs = "cgroupfs"
	CgroupDriverSystemd  = "systemd"
)

// DefaultCgroupParent contains the cgroup parent for each cgroup driver.
var DefaultCgroupParent = map[string]string{
	CgroupDriverCgroupfs: "/criserver",
	CgroupDriverSystemd:  "criserver.slice",
}

// The values of streaming.tls_min_version.
const (
	TLS12 = "VersionTLS12"
	TLS13 = "VersionTLS13"
)

// The types of OCI runtimes.
const (
	RuntimeTypeOCI   = "oci"   // a runtime with the command line of runc, whose containers are processes of the host
	RuntimeTypeRunsc = "runsc" // gVisor, which runs the containers of a pod under one guest kernel
)

// BuiltinHandlers are the runtime handlers that need no configuration if their binaries are
// in the PATH.
var BuiltinHandlers = []string{"crun", "runc", "runsc"}

// DefaultHandlers are the handlers that can become the default handler without
// configuration, in order of preference.
var DefaultHandlers = []string{"crun", "runc"}

// MonitorPaths are the paths where the daemon looks for the monitor's binary, in order.
// Relative paths are relative to the directory of the daemon's binary. The libexec directory
// comes first, because distributions install another program of the name conmon, for Podman
// and CRI-O, in the directory of the daemon.
var MonitorPaths = []string{"../libexec/criserver/conmon", "conmon", "/usr/libexec/criserver/conmon"}

// Default returns the default configuration. Keys whose defaults depend on other keys or on
// the host are empty.
func Default() Config {
	return Config{
		Root:         "/var/lib/criserver",
		RunDir:       "/run/criserver",
		LogLevel:     "info",
		LogFormat:    "text",
		CgroupDriver: CgroupDriverAuto,
		SELinux:      true,
		CNI: CNI{
			ConfDirs: []string{"/etc/cni/net.d"},
			BinDirs:  []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"},
			Builtin:  true,

			DefaultBridge: true,
			HostPorts:     true,
			IPPreference:  IPPreferenceCNI,
			Additional:    []string{},
		},
		Image: Image{
			Pinned:          []string{},
			ParallelLayers:  6,
			ProgressWindow:  time.Minute,
			MaxLayers:       500,
			MaxLayerEntries: 2_000_000,
			MaxLayerBytes:   256 << 30,
			ArchiveDirs:     []string{},
			MaxArchiveBytes: 64 << 30,
		},
		Pod: Pod{
			AllowedSysctls: []string{"kernel.shm*", "kernel.msg*", "kernel.sem", "fs.mqueue.*", "net.*"},
			ShmSize:        64 << 20,
			NetNSDir:       "/run/netns",
			DefaultSysctls: []string{},
		},
		Container: Container{
			Capabilities: []string{
				"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "SETGID", "SETUID", "SETPCAP",
				"NET_BIND_SERVICE", "KILL",
			},
			DefaultUlimits:  []string{"nofile=1024:524288"},
			PidsLimit:       0,
			AppArmorProfile: DefaultAppArmorProfile,
			MakeHostPaths:   true,
			CDISpecDirs:     []string{"/etc/cdi", "/var/run/cdi"},
			HooksDirs:       []string{"/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d"},

			DefaultEnv:        []string{},
			AdditionalDevices: []string{},
			RequiredHostPaths: []string{},
		},
		Streaming: Streaming{
			Address:     "127.0.0.1:0",
			IdleTimeout: 4 * time.Hour,

			TLSMinVersion:   TLS12,
			TLSCipherSuites: []string{},
		},
		NRI: NRI{
			Enable:              true,
			Socket:              "/var/run/nri/nri.sock",
			PluginDir:           "/opt/nri/plugins",
			PluginConfigDir:     "/etc/nri/conf.d",
			RegistrationTimeout: 30 * time.Second,
			RequestTimeout:      10 * time.Second,
			RejectSeccomp:       []string{},
			RequiredPlugins:     []string{},
		},
	}
}

// setDependentDefaults sets the empty keys whose defaults depend on other keys.
func (c *Config) setDependentDefaults() {
	if c.Socket == "" {
		c.Socket = filepath.Join(c.RunDir, socketName)
	}
	if c.AdminSocket == "" {
		c.AdminSocket = filepath.Join(c.RunDir, adminSocketName)
	}
	if c.Metrics.Address == "" {
		c.Metrics.Address = filepath.Join(c.RunDir, metricsSocketName)
	}
	for name, r := range c.Runtimes {
		if r.Type == "" {
			r.Type = RuntimeType(name, r.Path)
		}
		if r.Root == "" {
			r.Root = RuntimeRoot(c.RunDir, name)
		}
		c.Runtimes[name] = r
	}
}

// The names of the sockets in run_dir.
const (
	socketName      = "criserver.sock" // the CRI
	adminSocketName = "admin.sock"     // the administration API
)

// RuntimeType returns the default type of a runtime handler, which depends on the name of
// its binary. The path of the binary may be empty; the binary then has the name of the
// handler.
func RuntimeType(handler, path string) string {
	binary := filepath.Base(path)
	if path == "" {
		binary = handler
	}
	if binary == "runsc" {
		return RuntimeTypeRunsc
	}
	return RuntimeTypeOCI
}

// RuntimeRoot returns the default state directory of a runtime handler.
func RuntimeRoot(runDir, handler string) string { return filepath.Join(runDir, "runtimes", handler) }
