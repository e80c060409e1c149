// Package config defines the configuration of the daemon: the keys, their defaults, and
// their validation. It reads the configuration from files and flags, and prints it.
// Everything here is plain data without behaviour. Only the main function and the
// composition root import this package; every other package has its own small Config.
package config

import "time"

// Config is the configuration of the daemon. The toml tags are the keys; help.go documents
// them.
type Config struct {
	Root         string `toml:"root"`
	RunDir       string `toml:"run_dir"`
	Socket       string `toml:"socket"`
	SocketGroup  string `toml:"socket_group"`
	AdminSocket  string `toml:"admin_socket"`
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

// CNI configures the networks of pods.
type CNI struct {
	ConfDirs       []string `toml:"conf_dirs"`
	BinDirs        []string `toml:"bin_dirs"`
	DefaultNetwork string   `toml:"default_network"`
	Additional     []string `toml:"additional_networks"`
	Builtin        bool     `toml:"builtin"`
	ConfTemplate   string   `toml:"conf_template"`
	DefaultBridge  bool     `toml:"default_bridge"`
	HostPorts      bool     `toml:"host_ports"`
}

// Image configures the sources of images and the limits for images.
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

// Pod configures pod sandboxes.
type Pod struct {
	AllowedSysctls []string `toml:"allowed_sysctls"`
	ShmSize        int64    `toml:"shm_size"`
	NetNSDir       string   `toml:"netns_dir"`
	DefaultSysctls []string `toml:"default_sysctls"`
}

// Container configures the defaults of containers.
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
	DefaultEnv               []string `toml:"default_env"`
	HooksDirs                []string `toml:"hooks_dirs"`
	AdditionalDevices        []string `toml:"additional_devices"`
	RequiredHostPaths        []string `toml:"required_host_paths"`
}

// Monitor configures the monitor process of each container.
type Monitor struct {
	Path       string `toml:"path"`
	Cgroup     string `toml:"cgroup"`
	LogSizeMax int64  `toml:"log_size_max"`
}

// Streaming configures the server for exec, attach and port-forward.
type Streaming struct {
	Address     string        `toml:"address"`
	IdleTimeout time.Duration `toml:"idle_timeout"`
	TLSCert     string        `toml:"tls_cert"`
	TLSKey      string        `toml:"tls_key"`

	TLSClientCA     string   `toml:"tls_client_ca"`
	TLSMinVersion   string   `toml:"tls_min_version"`
	TLSCipherSuites []string `toml:"tls_cipher_suites"`
}

// NRI configures plugins of the Node Resource Interface.
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

// Runtime configures a runtime handler.
type Runtime struct {
	Path               string   `toml:"path"`
	Type               string   `toml:"type"`
	Root               string   `toml:"root"`
	Options            []string `toml:"options"`
	AllowedAnnotations []string `toml:"allowed_annotations"`
	CNIConfDirs        []string `toml:"cni_conf_dirs"`

	BaseSpec        string `toml:"base_spec"`
	WritableCgroups bool   `toml:"writable_cgroups"`
	NoPivot         bool   `toml:"no_pivot"`

	PrivilegedWithoutHostDevices bool `toml:"privileged_without_host_devices"`
	AllDevicesAllowed            bool `toml:"privileged_without_host_devices_all_devices_allowed"`
}
