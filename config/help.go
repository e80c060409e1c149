package config

// help says what each key means, by its full name. A key "runtimes.NAME.x"
// stands for every handler.
var help = map[string]string{
	"root":          "Directory of what must outlive a reboot: images, and on the same file system the containers' writable layers. One daemon alone may use it.",
	"run_dir":       "Directory of pod and container state, on a file system that a reboot empties (tmpfs). One daemon alone may use it.",
	"socket":        "Path of the gRPC socket, mode 0660. Empty: criserver.sock in run_dir.",
	"socket_group":  "Group that owns the socket, a name or a number. Empty: the daemon's.",
	"log_level":     "What is logged: trace, debug, info, warning or error. Changes are logged at info, queries at debug.",
	"log_format":    "text or json, to the standard error stream.",
	"cgroup_driver": "Who makes the pods' cgroups: cgroupfs, systemd (unified hierarchy only), or auto: systemd where it runs the machine with the unified hierarchy, else cgroupfs. The kubelet takes it over by RuntimeConfig.",
	"cgroup_parent": "Parent cgroup of pods that name none. Empty: /criserver with cgroupfs, criserver.slice with systemd.",
	"selinux":       "Whether pods and containers have SELinux labels, where the host has SELinux enabled. Where it has not, or with false, those that ask for labels are refused.",

	"cni.conf_dirs":           "Directories with CNI network configuration (*.conflist, *.conf, *.json), in the order in which they are searched. They are watched.",
	"cni.bin_dirs":            "Directories with CNI plugins, in the order in which they are searched.",
	"cni.default_network":     "Name of the network that pods are attached to. Empty: the first one in lexical order of file names.",
	"cni.additional_networks": "Names of networks in the same directories on which a pod may ask for interfaces, by the annotations criserver.io/networks and criserver.io/default-network. One of them is the default network only if default_network names it.",
	"cni.builtin":             "Whether the daemon does by itself what the plugins bridge and host-local do with the usual configuration, and masquerades once per network. false: every plugin is executed.",

	"cni.conf_template": "Template (Go text/template) of the default network, for clusters where the kubelet tells the address ranges of the node's pods: {{.PodCIDR}} is the first, {{.PodCIDRRanges}} all, {{.Routes}} the default routes of their families. The result is 10-criserver-pod-cidr.conflist in the first of conf_dirs, and is not written where another file configures the default network. Empty: such ranges are ignored.",

	"image.registries_conf":     "containers-registries.conf(5): mirrors, remaps, insecure registries, short names. Empty: the system's.",
	"image.registries_conf_dir": "Its drop-in directory. Empty: the system's.",
	"image.policy":              "containers-policy.json(5): which signatures are demanded. Empty: the system's, and where there is none every image is accepted.",
	"image.policy_dir":          "Directory of signature policies for single namespaces: NAMESPACE.json, in place of image.policy for the pulls of pods in that namespace. Empty: none.",
	"image.registries_d":        "containers-registries.d(5), a directory: where the signatures of images are found. Empty: the system's.",
	"image.auth_file":           "containers-auth.json(5): credentials for pulls that bring none. Empty: the system's.",
	"image.pinned":              "Images that the kubelet's garbage collection must leave: references, prefixes ending in *, or parts between two *.",
	"image.parallel_layers":     "How many layers of one image are fetched and unpacked at once.",
	"image.progress_window":     "A pull in which no byte arrived for so long is ended. 0: never.",
	"image.max_layers":          "Images with more layers are refused.",
	"image.max_layer_entries":   "Layers with more files, directories and links are refused.",
	"image.max_layer_bytes":     "Layers that take more bytes unpacked are refused.",

	"pod.allowed_sysctls": "Sysctls that pods may set: names, or prefixes ending in *. Only those that the pod's own namespaces confine can be named.",
	"pod.shm_size":        "Size of a pod's /dev/shm in bytes.",

	"container.capabilities":               "Capabilities of containers that ask for nothing else, without CAP_. Requests add to these and drop from them.",
	"container.make_host_paths":            "Whether a host path that a mount names and that does not exist is made, as a directory. false: the container is refused.",
	"container.cdi_spec_dirs":              "Directories with specs of the Container Device Interface (*.json, *.yaml), of which later ones win. They are read for each container that names such a device. Empty: those containers are refused.",
	"container.device_owner_from_user":     "Whether the devices that a container asks for belong, inside it, to the user and group that it is asked to run as, rather than to the owner that they have on the host.",
	"container.blockio_config_file":        "File (YAML) of classes of block I/O: weights and rates for sets of devices, in the form of goresctrl. Pods ask for a class by annotation. It is read again for each container that does. Empty: no class exists.",
	"container.rdt_config_file":            "File (YAML) of classes of cache and memory bandwidth (RDT), each a control group of resctrl. Empty: no class exists.",
	"container.pids_limit":                 "Limit of processes and threads in one container. 0: none but the pod's.",
	"container.seccomp_profile":            "File of the seccomp profile that RuntimeDefault means, JSON. It is read at start. Empty: the one that is built in.",
	"container.privileged_seccomp_profile": "File of a seccomp profile for privileged containers, whatever they ask for. Empty: they have none, as the CRI has it.",
	"container.seccomp_unasked":            "Whether containers whose request says nothing of seccomp get the default profile. The CRI has them unconfined; a kubelet always says what it wants.",
	"container.apparmor_profile":           "Name of the AppArmor profile that RuntimeDefault means, where the host has AppArmor. The default one is made by the daemon and loaded with apparmor_parser; any other must be loaded already. Empty: none.",

	"monitor.path":   "The monitor's binary. Empty: conmon beside the daemon's own binary, else /usr/libexec/criserver/conmon.",
	"monitor.cgroup": "Cgroup of all monitors. Empty: the cgroup parent's name with -monitors appended; with systemd, a child of the daemon's own cgroup.",

	"streaming.address":      "Where the streams of exec, attach and port-forward are served, an IP address and a port; port 0 is any free one. The kubelet fetches them, so loopback will do. Any other address needs a certificate.",
	"streaming.idle_timeout": "A stream's connection on which nothing was said for so long is ended. 0: never.",
	"streaming.tls_cert":     "Certificate (PEM) of the streaming server, read anew for each connection. Empty: no TLS.",
	"streaming.tls_key":      "Its private key (PEM).",

	"nri.enable":               "Whether plugins of the Node Resource Interface are told of pods and containers, and may change and refuse them: see nri.md.",
	"nri.socket":               "Where plugins connect. Who can connect can do anything on the node; the socket's directory is made for root alone.",
	"nri.disable_connections":  "Whether nobody can connect, so that the only plugins are those in plugin_dir.",
	"nri.plugin_dir":           "Directory of plugins that are run with the daemon: executables named NN-name. It need not exist.",
	"nri.plugin_config_dir":    "Directory of their configuration: NN-name.conf or name.conf.",
	"nri.registration_timeout": "How long a plugin that has connected, or was started, may take to introduce itself.",
	"nri.request_timeout":      "How long a plugin may take to answer. One that takes longer is disconnected, and the request goes on without it, unless the plugin asked for something else.",
	"nri.validator":            "Whether the rules below are applied to what plugins want, and annotations of pods that name required plugins are obeyed.",
	"nri.reject_hooks":         "Refuse containers to which a plugin adds OCI hooks.",
	"nri.reject_namespaces":    "Refuse containers whose namespaces a plugin changes.",
	"nri.reject_sysctls":       "Refuse containers whose sysctls a plugin changes.",
	"nri.reject_seccomp":       "Refuse containers whose seccomp profile a plugin changes, if it is of one of these kinds: runtime-default, localhost, unconfined.",
	"nri.required_plugins":     "Plugins without which no container is made.",
	"nri.tolerate_missing":     "Annotation by which a pod does without them. Empty: none.",

	"default_runtime": "Handler of pods that name none. Empty: crun where it works on this host, else runc; it is tried once per boot, and the log says which and why.",

	"runtimes":                          "Runtime handlers by name, as in [runtimes.runc]. crun, runc and runsc need not be listed where they are in the PATH.",
	"runtimes.NAME.path":                "The runtime's binary.",
	"runtimes.NAME.type":                "oci: a runtime with runc's command line.",
	"runtimes.NAME.root":                "The runtime's own state directory. Empty: runtimes/NAME in run_dir.",
	"runtimes.NAME.allowed_annotations": "Annotations that reach the runtime: keys, or prefixes ending in *.",
}
