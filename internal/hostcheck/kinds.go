package hostcheck

import (
	"fmt"
	"io"
	"strings"
)

// Kind is a kind of finding. The documentation lists all kinds.
type Kind struct {
	ID       string // the group and a name, as in "kernel.version"
	Severity Severity
	Reason   string // why the problem matters
	Remedy   string // steps for the operator
}

// Kinds returns all kinds, by group.
func Kinds() []Kind {
	var all []Kind
	for _, kinds := range [][]Kind{kernelKinds, cgroupKinds, storageKinds, securityKinds, networkKinds, runtimeKinds, sysctlKinds, systemKinds} {
		all = append(all, kinds...)
	}
	return all
}

// kind returns the kind with an ID. A check that uses an unknown ID is a programming error, which
// a test finds.
func kind(id string) Kind {
	for _, k := range Kinds() {
		if k.ID == id {
			return k
		}
	}
	panic("unknown kind of finding " + id)
}

// Reference writes the table of all kinds for the documentation.
func Reference(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| finding | severity | why it matters | remedy |\n|---|---|---|---|\n")
	for _, k := range Kinds() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.ID, k.Severity, k.Reason, k.Remedy)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var kernelKinds = []Kind{
	{"kernel.version", Error, "The daemon is tested on Linux 5.15 and later, and uses system calls that older kernels do not have.", "Update the kernel."},
	{"kernel.syscalls", Error, "The daemon and the OCI runtimes resolve paths, mount and signal processes with these system calls. A seccomp filter of a container around the daemon can hide them, too.", "Update the kernel, or allow the system calls."},
	{"kernel.overlay", Error, "The root file system of each container is an overlay mount.", "Install the package with the modules of the kernel, for example linux-modules-extra, or use a kernel with CONFIG_OVERLAY_FS."},
	{"kernel.network", Error, "Pods are connected by pairs of veth interfaces and a bridge, and nftables masquerades their traffic and maps host ports.", "Install the package with the modules of the kernel, or use a kernel with these features. With another network plugin, the plugin decides which features are needed."},
	{"kernel.br_netfilter", Info, "kube-proxy and network policies see the traffic between pods on one bridge only with the module.", "Install the package with the modules of the kernel if the cluster uses kube-proxy with a bridge."},
	{"kernel.vxlan", Info, "Overlay networks such as Flannel and Calico use VXLAN by default.", "Install the package with the modules of the kernel if the network plugin needs the module."},
	{"kernel.unknown", Info, "The check cannot say whether all modules are available.", "Mount /lib/modules if the daemon runs in a container."},
	{"kernel.namespaces", Error, "Each pod has its own namespaces.", "Use a kernel with all namespaces."},
	{"kernel.user_namespaces", Warning, "Pods with hostUsers: false cannot run.", "Use a kernel with CONFIG_USER_NS."},
	{"kernel.time_namespaces", Info, "Only programs that create time namespaces themselves need them.", "None."},
	{"kernel.idmapped_mounts", Warning, "Pods with hostUsers: false need mounts with mapped IDs. Kubernetes requires them for tmpfs, too.", "Update the kernel to 6.3 or later if pods use user namespaces."},
}

var cgroupKinds = []Kind{
	{"cgroups.v1", Warning, "Kubernetes no longer supports version 1, and features such as the quality of service of memory need version 2.", "Boot with systemd.unified_cgroup_hierarchy=1."},
	{"cgroups.driver", Error, "The daemon does not start.", "Boot with the unified hierarchy, or set cgroup_driver to cgroupfs."},
	{"cgroups.missing", Error, "The daemon cannot limit or stop the processes of containers.", "Mount the cgroup file system at /sys/fs/cgroup."},
	{"cgroups.controllers", Error, "Containers with limits of this resource cannot run.", "Enable the controller in the kernel. On some systems the memory controller needs cgroup_enable=memory on the command line of the kernel."},
	{"cgroups.optional_controllers", Warning, "Limits of this resource have no effect or are refused.", "Enable the controller in the kernel."},
}

var storageKinds = []Kind{
	{"storage.unreadable", Error, "The daemon cannot use the directory.", "Check the permissions and the mount of the directory."},
	{"storage.filesystem", Error, "Overlay mounts cannot have their writable layers on this file system.", "Put root on a local file system such as ext4 or XFS."},
	{"storage.d_type", Error, "Overlay mounts need the types of directory entries. Files that an image deletes would appear in containers.", "Create the XFS file system again with ftype=1 (mkfs.xfs -n ftype=1)."},
	{"storage.volatile", Warning, "Images are in memory, and are lost with a reboot.", "Put root on a disk."},
	{"storage.run_dir", Error, "The state of pods must not outlive a reboot: process IDs in it would belong to other processes.", "Set run_dir to a directory below /run."},
	{"storage.run_dir_space", Warning, "Pods cannot be created without space for their state.", "Remove files, or enlarge the tmpfs (mount -o remount,size=…)."},
	{"storage.full", Error, "Pulls fail, and containers cannot write.", "Remove images and files, or enlarge the file system."},
	{"storage.space", Warning, "Below 15 % the kubelet deletes unused images and then evicts pods.", "Remove images and files, or enlarge the file system."},
	{"storage.inodes", Warning, "Below 5 % the kubelet deletes unused images and then evicts pods.", "Remove images, or create the file system with more inodes."},
}

var securityKinds = []Kind{
	{"security.seccomp", Warning, "Containers run without a filter of system calls.", "Use a kernel with CONFIG_SECCOMP_FILTER."},
	{"security.seccomp_actions", Warning, "Profiles that use the action cannot be loaded.", "Update the kernel."},
	{"security.unprivileged_userns", Info, "Only programs outside of the daemon are affected, such as rootless runtimes and sandboxes of browsers.", "None, unless such programs fail."},
	{"security.apparmor_parser", Warning, "The daemon cannot load its default profile, and containers run without one.", "Install the package apparmor."},
	{"security.apparmor_profile", Error, "The daemon does not start, because containers would run without the profile of container.apparmor_profile.", "Load the profile with apparmor_parser, or change the key."},
	{"security.selinux_off", Warning, "SELinux does not separate containers from each other.", "Set selinux to true."},
	{"security.selinux_permissive", Warning, "SELinux logs forbidden operations of containers, but allows them.", "Set SELINUX=enforcing in /etc/selinux/config after the log has no denials."},
	{"security.selinux_contexts", Warning, "The policy does not define the types of containers.", "Install container-selinux, or the policy module of the documentation (install.md)."},
	{"security.selinux_label", Warning, "The daemon does not run in the domain of container runtimes, and its containers get the wrong domain.", "Install the policy module before the daemon, and run restorecon -RF on the files of the daemon."},
}

var networkKinds = []Kind{
	{"network.default_bridge", Info, "Pods use a bridge of the daemon until a network is configured.", "None. Install a network plugin if pods must reach pods on other nodes."},
	{"network.none", Error, "Pods cannot be attached to a network, and the node is not ready.", "Install a network plugin, or put a .conflist file into the directory."},
	{"network.invalid", Warning, "The daemon ignores the file. If it was to contain the default network, pods get another network or none.", "Correct or remove the file."},
	{"network.duplicate", Warning, "The daemon uses the first file only.", "Remove one of the files, or rename its network."},
	{"network.plugin", Error, "Pods cannot be attached to the network.", "Install the plugin, or add its directory to cni.bin_dirs."},
	{"network.builtin_plugin", Warning, "The daemon does the usual work of this plugin itself, but needs the plugin for other configurations and for CNI GC.", "Install the package containernetworking-plugins."},
	{"network.overlap", Warning, "Pods cannot reach the addresses behind the route, or the host cannot reach the pods.", "Choose another range for the network."},
	{"network.ip_forward", Info, "Pods reach other hosts only if the host forwards packets. The daemon sets the key when it connects the first pod; kubeadm checks it before.", "Set net.ipv4.ip_forward = 1 in /etc/sysctl.d."},
	{"network.bridge_nf", Info, "kube-proxy and network policies do not see the traffic between pods on one bridge. A pod then gets no answer of a Service whose pod is on the same node.", "Load br_netfilter and set net.bridge.bridge-nf-call-iptables = 1 if the cluster uses kube-proxy with a bridge."},
	{"network.rp_filter", Info, "Hosts with several interfaces drop packets that come in through another interface than the answer takes. Some network plugins need 0 or 2.", "Set net.ipv4.conf.all.rp_filter to 2 if traffic of pods is lost."},
	{"network.firewall", Warning, "Its rules may drop the traffic of pods. The daemon has its own tables of nftables and restores them if the service deletes them.", "Allow forwarded traffic from and to the bridge of the pods."},
	{"network.nftables_service", Warning, "Each start of the service deletes all rules (flush ruleset), including the rules of kube-proxy. The daemon restores its own tables.", "Remove flush ruleset from /etc/nftables.conf."},
	{"network.nri_socket", Warning, "Plugins connect to the other process and not to the daemon.", "Set nri.socket, or stop the other runtime."},
	{"network.stream_port", Error, "The daemon does not start.", "Use another port in streaming.address, or port 0."},
	{"network.other_runtime", Warning, "Two runtimes can use the same CNI networks, addresses and host ports. Both remove only their own rules.", "Stop the other runtime and remove its pods, or give it other networks."},
}

var runtimeKinds = []Kind{
	{"runtimes.none", Error, "The daemon does not start without a runtime.", "Install crun or runc."},
	{"runtimes.missing", Error, "Pods with this runtime handler cannot run.", "Install the runtime, or correct runtimes.NAME.path."},
	{"runtimes.broken", Error, "Pods with this runtime handler cannot run.", "Run the command, and install the missing parts of the runtime."},
	{"runtimes.vulnerable", Warning, "A container can break out or change the host.", "Update the runtime. Running containers keep the old one until they are created again."},
}

var sysctlKinds = []Kind{
	{"sysctls.inotify", Warning, "The kubelet, log collectors and programs in pods watch files, and fail with \"too many open files\" when the limit is reached.", "Raise the key in /etc/sysctl.d."},
	{"sysctls.pids", Warning, "Processes cannot be created when the limit is reached, on the whole host.", "Raise the key in /etc/sysctl.d."},
	{"sysctls.files", Warning, "The daemon and containers cannot have their limits of open files.", "Raise the key in /etc/sysctl.d."},
	{"sysctls.keys", Warning, "OCI runtimes create a session keyring for each container.", "Raise the key in /etc/sysctl.d."},
	{"sysctls.namespaces", Warning, "Each pod has its own namespaces, and pods cannot be created when the limit is reached.", "Raise the key in /etc/sysctl.d."},
	{"sysctls.user_namespaces", Warning, "Pods with hostUsers: false cannot be created when the limit is reached.", "Raise the key in /etc/sysctl.d."},
	{"sysctls.conntrack", Warning, "New connections of pods are dropped when the table of connections is full.", "Raise the key in /etc/sysctl.d."},
	{"sysctls.maps", Info, "Databases and search engines in pods need many memory maps.", "Raise the key in /etc/sysctl.d."},
}

var systemKinds = []Kind{
	{"system.no_systemd", Info, "The daemon uses the cgroup driver cgroupfs, and nothing restarts it after a failure unless another service manager does.", "None."},
	{"system.systemd", Error, "The daemon needs properties of scopes that older versions do not have.", "Update systemd, or set cgroup_driver to cgroupfs."},
	{"system.kill_mode", Error, "A restart of the daemon would kill the monitors of all containers.", "Set KillMode=process in the unit."},
	{"system.delegate", Error, "systemd may move or remove the cgroup of the monitors.", "Set Delegate=yes in the unit."},
	{"system.limits", Warning, "The daemon and the containers with default limits have at most this many files or processes.", "Set the limits of the unit as in the unit that comes with the daemon."},
	{"system.clock", Error, "Certificates of registries and of the API server are not valid yet.", "Set the clock."},
	{"system.clock_sync", Warning, "The clocks of the nodes drift apart: logs, certificates and leases of Kubernetes depend on them.", "Enable systemd-timesyncd or chrony."},
	{"system.hostname", Warning, "The kubelet uses the host name as the name of the node, which must be a unique DNS name in lower case.", "Set the host name with hostnamectl, or use --hostname-override of the kubelet."},
	{"system.swap", Info, "The kubelet does not start with swap unless its configuration has failSwapOn: false.", "Turn swap off, or configure the kubelet."},
}
