// Package config defines the configuration of the daemon: the keys, their defaults, and
// their validation. It reads the configuration from files and flags, and prints it.
// Everything here is plain data without behaviour. Only the main function and the
// composition root import this package; every other package has its own small Config.
package config

import "time"

// Config is the configuration of the daemon. The toml tags are the keys; help.go documents
// them. The reload tags say when a new value of a key takes effect: "yes" means with the next
// reload, "restart" means when the daemon starts.
type Config struct {
	Root         string `toml:"root" reload:"restart"`
	RunDir       string `toml:"run_dir" reload:"restart"`
	Socket       string `toml:"socket" reload:"restart"`
	SocketGroup  string `toml:"socket_group" reload:"restart"`
	AdminSocket  string `toml:"admin_socket" reload:"restart"`
	LogLevel     string `toml:"log_level" reload:"yes"`
	LogFormat    string `toml:"log_format" reload:"yes"`
	CgroupDriver string `toml:"cgroup_driver" reload:"restart"`
	CgroupParent string `toml:"cgroup_parent" reload:"restart"`
	SELinux      bool   `toml:"selinux" reload:"restart"`

	CNI       CNI       `toml:"cni"`
	Image     Image     `toml:"image"`
	Pod       Pod       `toml:"pod"`
	Container Container `toml:"container"`
	Monitor   Monitor   `toml:"monitor"`
	Streaming Streaming `toml:"streaming"`
	NRI       NRI       `toml:"nri"`
	Tracing   Tracing   `toml:"tracing"`
	Metrics   Metrics   `toml:"metrics"`

	Checkpoint Checkpoint `toml:"checkpoint"`

	DefaultRuntime string             `toml:"default_runtime" reload:"yes"`
	Runtimes       map[string]Runtime `toml:"runtimes"`
}

// CNI configures the networks of pods.
type CNI struct {
	ConfDirs       []string `toml:"conf_dirs" reload:"yes"`
	BinDirs        []string `toml:"bin_dirs" reload:"yes"`
	DefaultNetwork string   `toml:"default_network" reload:"yes"`
	Additional     []string `toml:"additional_networks" reload:"yes"`
	Builtin        bool     `toml:"builtin" reload:"restart"`
	ConfTemplate   string   `toml:"conf_template" reload:"yes"`
	DefaultBridge  bool     `toml:"default_bridge" reload:"yes"`
	HostPorts      bool     `toml:"host_ports" reload:"yes"`
	IPPreference   string   `toml:"ip_preference" reload:"yes"`
}

// The values of cni.ip_preference.
const (
	IPPreferenceCNI  = "cni"
	IPPreferenceIPv4 = "ipv4"
	IPPreferenceIPv6 = "ipv6"
)

// Image configures the sources of images and the limits for images.
type Image struct {
	RegistriesConf    string        `toml:"registries_conf" reload:"yes"`
	RegistriesConfDir string        `toml:"registries_conf_dir" reload:"yes"`
	Policy            string        `toml:"policy" reload:"yes"`
	PolicyDir         string        `toml:"policy_dir" reload:"yes"`
	RegistriesD       string        `toml:"registries_d" reload:"yes"`
	AuthFile          string        `toml:"auth_file" reload:"yes"`
	Pinned            []string      `toml:"pinned" reload:"yes"`
	ParallelLayers    int           `toml:"parallel_layers" reload:"yes"`
	ProgressWindow    time.Duration `toml:"progress_window" reload:"yes"`
	MaxLayers         int           `toml:"max_layers" reload:"yes"`
	MaxLayerEntries   int           `toml:"max_layer_entries" reload:"yes"`
	MaxLayerBytes     int64         `toml:"max_layer_bytes" reload:"yes"`
	ArchiveDirs       []string      `toml:"archive_dirs" reload:"yes"`
	MaxArchiveBytes   int64         `toml:"max_archive_bytes" reload:"yes"`
}

// Pod configures pod sandboxes.
type Pod struct {
	AllowedSysctls []string `toml:"allowed_sysctls" reload:"yes"`
	ShmSize        int64    `toml:"shm_size" reload:"yes"`
	NetNSDir       string   `toml:"netns_dir" reload:"restart"`
	DefaultSysctls []string `toml:"default_sysctls" reload:"yes"`
}

// Container configures the defaults of containers.
type Container struct {
	Capabilities             []string `toml:"capabilities" reload:"yes"`
	DefaultUlimits           []string `toml:"default_ulimits" reload:"yes"`
	PidsLimit                int64    `toml:"pids_limit" reload:"yes"`
	BlockIOConfigFile        string   `toml:"blockio_config_file" reload:"yes"`
	RDTConfigFile            string   `toml:"rdt_config_file" reload:"yes"`
	MakeHostPaths            bool     `toml:"make_host_paths" reload:"yes"`
	CDISpecDirs              []string `toml:"cdi_spec_dirs" reload:"yes"`
	DeviceOwnerFromUser      bool     `toml:"device_owner_from_user" reload:"yes"`
	SeccompProfile           string   `toml:"seccomp_profile" reload:"yes"`
	PrivilegedSeccompProfile string   `toml:"privileged_seccomp_profile" reload:"yes"`
	SeccompUnasked           bool     `toml:"seccomp_unasked" reload:"yes"`
	AppArmorProfile          string   `toml:"apparmor_profile" reload:"yes"`
	DefaultEnv               []string `toml:"default_env" reload:"yes"`
	HooksDirs                []string `toml:"hooks_dirs" reload:"yes"`
	AdditionalDevices        []string `toml:"additional_devices" reload:"yes"`
	RequiredHostPaths        []string `toml:"required_host_paths" reload:"yes"`
	IgnoreImageVolumes       bool     `toml:"ignore_image_volumes" reload:"yes"`
	Timezone                 string   `toml:"timezone" reload:"yes"`
}

// Monitor configures the monitor process of each container.
type Monitor struct {
	Path       string `toml:"path" reload:"restart"`
	Cgroup     string `toml:"cgroup" reload:"restart"`
	LogSizeMax int64  `toml:"log_size_max" reload:"yes"`
}

// Streaming configures the server for exec, attach and port-forward.
type Streaming struct {
	Address     string        `toml:"address" reload:"restart"`
	IdleTimeout time.Duration `toml:"idle_timeout" reload:"yes"`
	TLSCert     string        `toml:"tls_cert" reload:"yes"`
	TLSKey      string        `toml:"tls_key" reload:"yes"`

	TLSClientCA     string   `toml:"tls_client_ca" reload:"yes"`
	TLSMinVersion   string   `toml:"tls_min_version" reload:"yes"`
	TLSCipherSuites []string `toml:"tls_cipher_suites" reload:"yes"`
}

// NRI configures plugins of the Node Resource Interface.
type NRI struct {
	Enable              bool          `toml:"enable" reload:"restart"`
	Socket              string        `toml:"socket" reload:"restart"`
	DisableConnections  bool          `toml:"disable_connections" reload:"restart"`
	PluginDir           string        `toml:"plugin_dir" reload:"restart"`
	PluginConfigDir     string        `toml:"plugin_config_dir" reload:"restart"`
	RegistrationTimeout time.Duration `toml:"registration_timeout" reload:"restart"`
	RequestTimeout      time.Duration `toml:"request_timeout" reload:"restart"`
	Validator           bool          `toml:"validator" reload:"restart"`
	RejectHooks         bool          `toml:"reject_hooks" reload:"restart"`
	RejectNamespaces    bool          `toml:"reject_namespaces" reload:"restart"`
	RejectSysctls       bool          `toml:"reject_sysctls" reload:"restart"`
	RejectSeccomp       []string      `toml:"reject_seccomp" reload:"restart"`
	RequiredPlugins     []string      `toml:"required_plugins" reload:"restart"`
	TolerateMissing     string        `toml:"tolerate_missing" reload:"restart"`
}

// Checkpoint configures checkpoints of containers and pods.
type Checkpoint struct {
	CRIU                string `toml:"criu" reload:"yes"`
	RestoreFromArchives bool   `toml:"restore_from_archives" reload:"yes"`
}

// Runtime configures a runtime handler.
type Runtime struct {
	Path               string   `toml:"path" reload:"yes"`
	Type               string   `toml:"type" reload:"yes"`
	Root               string   `toml:"root" reload:"yes"`
	Options            []string `toml:"options" reload:"yes"`
	AllowedAnnotations []string `toml:"allowed_annotations" reload:"yes"`
	CNIConfDirs        []string `toml:"cni_conf_dirs" reload:"yes"`

	BaseSpec        string `toml:"base_spec" reload:"yes"`
	WritableCgroups bool   `toml:"writable_cgroups" reload:"yes"`
	NoPivot         bool   `toml:"no_pivot" reload:"yes"`
	SeccompProfile  string `toml:"seccomp_profile" reload:"yes"`

	PrivilegedWithoutHostDevices bool `toml:"privileged_without_host_devices" reload:"yes"`
	AllDevicesAllowed            bool `toml:"privileged_without_host_devices_all_devices_allowed" reload:"yes"`
}
