// Package config is what an operator can set: the values, their defaults, where
// they come from, and the rules that they obey. It is plain data: nothing here
// acts, and nobody but the command imports it.
package config

import (
	"path/filepath"
	"time"
)

// DefaultFile is read when no other file is named; it need not exist.
const DefaultFile = "/etc/criserver/criserver.toml"

// Config is the effective configuration. The toml tags are the keys; what each
// means stands in help.go, from where the reference page and the comments of
// the printed configuration come.
type Config struct {
	Root         string `toml:"root"`
	RunDir       string `toml:"run_dir"`
	Socket       string `toml:"socket"`
	SocketGroup  string `toml:"socket_group"`
	LogLevel     string `toml:"log_level"`
	LogFormat    string `toml:"log_format"`
	CgroupDriver string `toml:"cgroup_driver"`
	CgroupParent string `toml:"cgroup_parent"`
	SELinux      bool   `toml:"selinux"`

	CNI       CNI       `toml:"cni"`
	Image     Image     `toml:"image"`
	Pod       Pod       `toml:"pod"`
	Container Container `toml:"container"`
	Monitor   Monitor   `toml:"monitor"`
	Streaming Streaming `toml:"streaming"`
	NRI       NRI       `toml:"nri"`

	DefaultRuntime string             `toml:"default_runtime"`
	Runtimes       map[string]Runtime `toml:"runtimes"`
}

// CNI says how pods are attached to networks.
type CNI struct {
	ConfDirs       []string `toml:"conf_dirs"`
	BinDirs        []string `toml:"bin_dirs"`
	DefaultNetwork string   `toml:"default_network"`
	Additional     []string `toml:"additional_networks"`
	Builtin        bool     `toml:"builtin"`
	ConfTemplate   string   `toml:"conf_template"`
}

// Image says where images come from and what they may be.
type Image struct {
	RegistriesConf    string        `toml:"registries_conf"`
	RegistriesConfDir string        `toml:"registries_conf_dir"`
	Policy            string        `toml:"policy"`
	PolicyDir         string        `toml:"policy_dir"`
	RegistriesD       string        `toml:"registries_d"`
	AuthFile          string        `toml:"auth_file"`
	Pinned            []string      `toml:"pinned"`
	ParallelLayers    int           `toml:"parallel_layers"`
	ProgressWindow    time.Duration `toml:"progress_window"`
	MaxLayers         int           `toml:"max_layers"`
	MaxLayerEntries   int           `toml:"max_layer_entries"`
	MaxLayerBytes     int64         `toml:"max_layer_bytes"`
}

// Pod sets what pod sandboxes get and may have.
type Pod struct {
	AllowedSysctls []string `toml:"allowed_sysctls"`
	ShmSize        int64    `toml:"shm_size"`
}

// Container sets what containers get that do not ask for anything else.
type Container struct {
	Capabilities             []string `toml:"capabilities"`
	DefaultUlimits           []string `toml:"default_ulimits"`
	PidsLimit                int64    `toml:"pids_limit"`
	BlockIOConfigFile        string   `toml:"blockio_config_file"`
	RDTConfigFile            string   `toml:"rdt_config_file"`
	MakeHostPaths            bool     `toml:"make_host_paths"`
	CDISpecDirs              []string `toml:"cdi_spec_dirs"`
	DeviceOwnerFromUser      bool     `toml:"device_owner_from_user"`
	SeccompProfile           string   `toml:"seccomp_profile"`
	PrivilegedSeccompProfile string   `toml:"privileged_seccomp_profile"`
	SeccompUnasked           bool     `toml:"seccomp_unasked"`
	AppArmorProfile          string   `toml:"apparmor_profile"`
}

// Monitor is about the process that stands beside each container.
type Monitor struct {
	Path   string `toml:"path"`
	Cgroup string `toml:"cgroup"`
}

// Streaming is about exec, attach and port-forward.
type Streaming struct {
	Address     string        `toml:"address"`
	IdleTimeout time.Duration `toml:"idle_timeout"`
	TLSCert     string        `toml:"tls_cert"`
	TLSKey      string        `toml:"tls_key"`
}

// NRI is about the plugins of the Node Resource Interface.
type NRI struct {
	Enable              bool          `toml:"enable"`
	Socket              string        `toml:"socket"`
	DisableConnections  bool          `toml:"disable_connections"`
	PluginDir           string        `toml:"plugin_dir"`
	PluginConfigDir     string        `toml:"plugin_config_dir"`
	RegistrationTimeout time.Duration `toml:"registration_timeout"`
	RequestTimeout      time.Duration `toml:"request_timeout"`
	Validator           bool          `toml:"validator"`
	RejectHooks         bool          `toml:"reject_hooks"`
	RejectNamespaces    bool          `toml:"reject_namespaces"`
	RejectSysctls       bool          `toml:"reject_sysctls"`
	RejectSeccomp       []string      `toml:"reject_seccomp"`
	RequiredPlugins     []string      `toml:"required_plugins"`
	TolerateMissing     string        `toml:"tolerate_missing"`
}

// Runtime is one runtime handler.
type Runtime struct {
	Path               string   `toml:"path"`
	Type               string   `toml:"type"`
	Root               string   `toml:"root"`
	Options            []string `toml:"options"`
	AllowedAnnotations []string `toml:"allowed_annotations"`
}

// Default returns the configuration of a daemon without any file.
func Default() Config {
	return Config{
		Root:         "/var/lib/criserver",
		RunDir:       "/run/criserver",
		LogLevel:     "info",
		LogFormat:    "text",
		CgroupDriver: "auto",
		SELinux:      true,
		CNI: CNI{
			ConfDirs: []string{"/etc/cni/net.d"},
			BinDirs:  []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"},
			Builtin:  true,

			Additional: []string{},
		},
		Image: Image{
			Pinned:          []string{},
			ParallelLayers:  6,
			ProgressWindow:  time.Minute,
			MaxLayers:       500,
			MaxLayerEntries: 2_000_000,
			MaxLayerBytes:   256 << 30,
		},
		Pod: Pod{
			AllowedSysctls: []string{"kernel.shm*", "kernel.msg*", "kernel.sem", "fs.mqueue.*", "net.*"},
			ShmSize:        64 << 20,
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
		},
		Streaming: Streaming{
			Address:     "127.0.0.1:0",
			IdleTimeout: 4 * time.Hour,
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

// fill derives what was left empty from what is set.
func (c *Config) fill() {
	if c.Socket == "" {
		c.Socket = c.RunDir + "/criserver.sock"
	}
	for name, r := range c.Runtimes {
		if r.Type == "" {
			r.Type = typeOf(name, r.Path)
		}
		if r.Root == "" {
			r.Root = c.RunDir + "/runtimes/" + name
		}
		c.Runtimes[name] = r
	}
}

// DefaultAppArmorProfile is the one profile that the daemon loads itself.
const DefaultAppArmorProfile = "criserver-default"

// The types of runtimes.
const (
	RuntimeTypeOCI   = "oci"   // with the command line of runc, containers are processes of the host
	RuntimeTypeRunsc = "runsc" // gVisor: the containers of a pod have a kernel of their own
)

// typeOf is that of a runtime whose configuration does not say it.
func typeOf(handler, path string) string {
	binary := filepath.Base(path)
	if path == "" {
		binary = handler
	}
	if binary == "runsc" {
		return RuntimeTypeRunsc
	}
	return RuntimeTypeOCI
}
