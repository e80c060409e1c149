package config

import "strings"

// help contains the description of each key by its full name. The keys "runtimes.NAME.x"
// stand for the keys of all runtime handlers. The descriptions do not repeat defaults that
// are constant, because Reference prints the default of each key.
var help = map[string]string{
	"root":          "Directory for data that survives a reboot: images, and on the same file system the writable layers of containers. Only one daemon may use the directory.",
	"run_dir":       "Directory for the state of pods and containers. It must be on a file system that a reboot empties (tmpfs). Only one daemon may use the directory.",
	"socket":        "Path of the gRPC socket. The socket has mode 0660. Empty: " + socketName + " in run_dir.",
	"socket_group":  "Group of the socket, by name or by ID. Empty: the group of the daemon.",
	"admin_socket":  "Path of the socket of the administration API, which commands such as `criserver status` use. The socket has mode 0600. Its directory must belong to the user of the daemon, and no other user may have the permission to write to it. Empty: " + adminSocketName + " in run_dir.",
	"log_level":     "Log level: trace, debug, info, warning or error. RPCs that change something are logged at info, queries at debug.",
	"log_format":    "Log format: text or json. The daemon logs to the standard error stream.",
	"cgroup_driver": "Cgroup driver, which creates the cgroups of pods: cgroupfs, systemd or auto. The driver systemd requires the unified cgroup hierarchy. auto means systemd if the host runs systemd with the unified hierarchy, and otherwise cgroupfs. The kubelet queries the driver with RuntimeConfig.",
	"cgroup_parent": "Cgroup parent of pods that do not name one: a path with the driver cgroupfs, the name of a slice with the driver systemd. Empty: " + DefaultCgroupParent[CgroupDriverCgroupfs] + " with cgroupfs, " + DefaultCgroupParent[CgroupDriverSystemd] + " with systemd.",
	"selinux":       "Whether pods and containers have SELinux labels if SELinux is enabled on the host. If false, the daemon ignores the SELinux options of requests.",

	"cni.conf_dirs":           "Directories with CNI network configurations (*.conflist, *.conf, *.json), in search order. The daemon watches the directories and loads changes at once.",
	"cni.bin_dirs":            "Directories with CNI plugins, in search order.",
	"cni.default_network":     "Name of the network to which pods are attached. Empty: the first network in lexical order of file names.",
	"cni.additional_networks": "Names of further networks in cni.conf_dirs. A pod can request interfaces on them with the annotations criserver.io/networks and criserver.io/default-network. None of them is the default network unless cni.default_network names it.",
	"cni.builtin":             "Whether the daemon itself does the work of the plugins bridge, host-local and portmap for the usual configuration, and sets up masquerading once per network. If false, the daemon executes all plugins.",
	"cni.conf_template":       "File with a template (Go text/template) for the default network, for clusters in which the kubelet reports the address ranges of the node's pods. {{.PodCIDR}} is the first range, {{.PodCIDRRanges}} contains all ranges, and {{.Routes}} contains a default route for each address family of the ranges. The daemon writes the result to 10-criserver-pod-cidr.conflist in the first directory of cni.conf_dirs, unless another file configures the default network. Empty: the daemon uses the ranges only for cni.default_bridge.",
	"cni.host_ports":          "Whether the host ports of pods are mapped. If false, the daemon accepts requests with host ports and maps none, neither itself nor by plugins. Pods that exist keep their host ports.",
	"cni.default_bridge":      "Whether pods are attached to a bridge of the daemon with a free private address range (cri0, or cri1 and so on if the interface exists) while cni.conf_dirs contain no network configuration. The range that the kubelet reports for the node's pods takes precedence over the free range. A configuration file, even an invalid one, cni.default_network or cni.conf_template turn the bridge off for new pods. Set the key to false if a program installs the network configuration after the start of the daemon.",

	"image.registries_conf":     "File in the format of containers-registries.conf(5), which configures mirrors, remapped and insecure registries, and short names. Empty: the file of the system.",
	"image.registries_conf_dir": "Directory with drop-in files for image.registries_conf. Empty: the directory of the system.",
	"image.policy":              "File in the format of containers-policy.json(5), which configures the signatures that images must have. Empty: the file of the system; if the system has no file, all images are accepted.",
	"image.policy_dir":          "Directory with signature policies for single namespaces. NAMESPACE.json replaces image.policy for pulls for pods in that namespace. Empty: no such policies.",
	"image.registries_d":        "Directory in the format of containers-registries.d(5), which configures where the signatures of images are stored. Empty: the directory of the system.",
	"image.auth_file":           "File in the format of containers-auth.json(5), with credentials for pulls whose requests contain none. Empty: the file of the system.",
	"image.pinned":              "Images that the kubelet's garbage collection must not remove: full names with a tag or a digest, prefixes that end in *, or substrings between two *.",
	"image.parallel_layers":     "Number of layers of one image that are downloaded and unpacked in parallel.",
	"image.progress_window":     "A pull fails if it receives no data for this time. 0: no limit.",
	"image.max_layers":          "Maximum number of layers of an image. The daemon refuses images with more layers.",
	"image.max_layer_entries":   "Maximum number of files, directories and links in a layer. The daemon refuses layers with more entries.",
	"image.max_layer_bytes":     "Maximum size of an unpacked layer in bytes. The daemon refuses larger layers.",

	"pod.allowed_sysctls": "Sysctls that pods may set: names, or prefixes that end in *. Only sysctls that belong to a namespace of the pod are valid.",
	"pod.shm_size":        "Size of /dev/shm of a pod in bytes.",
	"pod.netns_dir":       "Directory with the names of the network namespaces of pods, criserver-ID for the pod with that ID. `ip netns` and the agents of CNI plugins look for namespaces in /run/netns. Empty: the namespaces have no names there, only paths in run_dir.",

	"container.capabilities":               "Default capabilities of containers, as in NET_BIND_SERVICE. A request can add capabilities to the default, or drop capabilities from it.",
	"container.default_ulimits":            "Resource limits of the processes in containers, as NAME=SOFT:HARD or NAME=BOTH. NAME is nofile, nproc, core or another limit of setrlimit(2). A limit is a number or unlimited. The default is the default of systemd for services, so it does not depend on the unit of the daemon. Processes inherit the limits that are not listed from the daemon.",
	"container.pids_limit":                 "Maximum number of processes and threads in a container, up to 4194304. 0: only the limit of the pod applies.",
	"container.blockio_config_file":        "File (YAML, in the format of goresctrl) that defines classes of block I/O: weights and rates for sets of devices. Pods select a class with an annotation. The daemon reads the file for each container with a class. Empty: no classes.",
	"container.rdt_config_file":            "File (YAML) that defines classes of cache and memory bandwidth (RDT). Each class is a control group of resctrl. Empty: no classes.",
	"container.make_host_paths":            "Whether the daemon creates a directory if the host path of a mount does not exist. If false, the daemon refuses the container.",
	"container.cdi_spec_dirs":              "Directories with specifications of the Container Device Interface (*.json, *.yaml). Later directories take precedence. The daemon reads the directories for each container with a CDI device. Empty: the daemon refuses such containers.",
	"container.device_owner_from_user":     "Whether the devices that a container requests belong, inside the container, to the user and group that the request sets. If false, they have the owner that they have on the host.",
	"container.seccomp_profile":            "File (JSON) with the seccomp profile of containers that request RuntimeDefault. The daemon reads the file when it starts. Empty: the built-in profile.",
	"container.privileged_seccomp_profile": "File (JSON) with the seccomp profile of privileged containers, whatever profile they request. The daemon reads the file when it starts. Empty: no profile, as the CRI specifies.",
	"container.seccomp_unasked":            "Whether containers whose requests contain no seccomp profile get the profile of RuntimeDefault. If false, they are unconfined, as the CRI specifies. The kubelet always requests a profile.",
	"container.apparmor_profile":           "Name of the AppArmor profile of containers that request RuntimeDefault, if the host has AppArmor. The daemon generates the profile " + DefaultAppArmorProfile + " and loads it with apparmor_parser; any other profile must be loaded before the daemon starts. Empty: no profile.",

	"monitor.path":   "Path of the monitor's binary. Empty: the first that exists of " + strings.Join(MonitorPaths, ", ") + ", where relative paths are relative to the directory of the daemon's binary.",
	"monitor.cgroup": "Cgroup of all monitors. Empty: with the cgroup driver cgroupfs, the cgroup parent with -monitors appended; with systemd, the child `monitors` of the cgroup of the daemon's unit.",

	"streaming.address":      "IP address and port of the server for exec, attach and port-forward. Port 0 means any free port. The kubelet connects to the server, so a loopback address suffices. Any other address requires streaming.tls_cert.",
	"streaming.idle_timeout": "Connections of streams that transfer no data for this time are closed. 0: no limit.",
	"streaming.tls_cert":     "File (PEM) with the certificate of the streaming server. Empty: no TLS. The daemon reads changed files of the keys streaming.tls_* again at the next connection, and uses the earlier content while changed files are invalid.",
	"streaming.tls_key":      "File (PEM) with the private key of streaming.tls_cert.",

	"streaming.tls_client_ca":     "File (PEM) with the certificates of authorities. If it is set, clients must present a certificate that one of the authorities has signed. The kubelet presents none when it forwards exec, attach and port-forward. Empty: clients need no certificate.",
	"streaming.tls_min_version":   "Lowest version of TLS: " + TLS12 + " or " + TLS13 + ", the names of the kubelet's option --tls-min-version.",
	"streaming.tls_cipher_suites": "Cipher suites for connections with TLS 1.2, by the names of IANA, as in TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256. Insecure suites are refused. Suites of TLS 1.3 are always enabled, so naming them has no effect. Empty: the secure suites.",

	"nri.enable":               "Whether plugins of the Node Resource Interface are notified of pods and containers, and may change and refuse them. See nri.md.",
	"nri.socket":               "Path of the socket to which plugins connect. A plugin can do anything on the node, so the daemon creates the directory of the socket for root only.",
	"nri.disable_connections":  "Whether the daemon refuses connections of plugins. If true, only the plugins in nri.plugin_dir run.",
	"nri.plugin_dir":           "Directory with plugins that the daemon starts: executable files named NN-name. The directory need not exist.",
	"nri.plugin_config_dir":    "Directory with the configuration of the plugins in nri.plugin_dir: NN-name.conf or name.conf.",
	"nri.registration_timeout": "Maximum time between the start or the connection of a plugin and its registration.",
	"nri.request_timeout":      "Maximum time in which a plugin must answer a request. The daemon disconnects a plugin that takes longer, and continues the request without the plugin, unless the plugin registered with another policy.",
	"nri.validator":            "Whether the daemon applies the following rules to the changes of plugins, and obeys the annotations of pods that name required plugins.",
	"nri.reject_hooks":         "Whether a container is refused if a plugin adds OCI hooks to it.",
	"nri.reject_namespaces":    "Whether a container is refused if a plugin changes its namespaces.",
	"nri.reject_sysctls":       "Whether a container is refused if a plugin changes its sysctls.",
	"nri.reject_seccomp":       "Kinds of seccomp profiles that plugins may not change: runtime-default, localhost, unconfined. A container is refused if a plugin changes its profile of such a kind.",
	"nri.required_plugins":     "Names of plugins without which no container is created.",
	"nri.tolerate_missing":     "Key of an annotation with which a pod does without the required plugins. Empty: no such annotation.",

	"default_runtime": "Runtime handler of pods that do not name one. Empty: the first of " + strings.Join(DefaultHandlers, ", ") + " that works on this host. The daemon tests the handler once per boot, and logs the result.",

	"runtimes":                          "Runtime handlers by name, as in [runtimes.runc]. The handlers " + strings.Join(BuiltinHandlers, ", ") + " exist without configuration if their binaries are in the PATH.",
	"runtimes.NAME.path":                "Path of the runtime's binary. Only for " + strings.Join(BuiltinHandlers, ", ") + " it may be empty: the binary in the PATH.",
	"runtimes.NAME.type":                "Type of the runtime. oci: a runtime with the command line of runc. runsc: gVisor, which runs the containers of a pod under one guest kernel. Empty: depends on the name of the binary.",
	"runtimes.NAME.root":                "State directory of the runtime. Empty: runtimes/NAME in run_dir.",
	"runtimes.NAME.options":             "Further options of the runtime. Each element is an option with its value, as in --network=host.",
	"runtimes.NAME.allowed_annotations": "Annotations of pods and containers that are passed to the runtime: keys, or prefixes that end in *.",
}
