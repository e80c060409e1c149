package steps

// Name is the name of a step. The names are part of the interface of the daemon: they are the names of spans,
// values of labels of metrics, and the first column of timelines. docs/tracing.md lists them.
type Name uint8

// The names of the steps. A step contains the steps that the operation below it performs.
const (
	RPC Name = iota + 1

	PodRun
	PodStop
	PodRemove
	PodRollback
	PodRecord
	PodFiles
	PodNamespaces
	PodPause

	CNIAdd
	CNIDel
	CNICheck
	CNIPlugin
	HostPorts
	Masquerade

	ContainerCreate
	ContainerStart
	ContainerStop
	ContainerRemove
	ContainerRollback
	ImageResolve
	RootFSMount
	RootFSUnmount
	VolumeMount
	BundleWrite
	SpecResolve
	SpecBuild
	GuestCreate

	MonitorStart
	RuntimeCreate
	RuntimeStart
	RuntimeCall

	CgroupCreate
	CgroupRemove
	SystemdScope
	SystemdSlice

	NRI

	ImagePull
	ImageSource
	ImageManifest
	ImageLayer
	ImageStore
	ImageLoad
	ImageSpool
	ImageSave

	LockWait
	NetworkWait
	LayerWait
	ExitWait

	endOfNames
)

// step describes a name.
type step struct {
	name, help string
	waits      bool
}

// descriptions contains the description of each name.
var descriptions = [endOfNames]step{
	RPC: {name: "rpc", help: "A request of a client, from its arrival to its answer. Attribute method."},

	PodRun:        {name: "pod.run", help: "RunPodSandbox, without the wait of a repeated request for the first one."},
	PodStop:       {name: "pod.stop", help: "StopPodSandbox, and the first part of RemovePodSandbox: end the containers and release the resources of the pod."},
	PodRemove:     {name: "pod.remove", help: "RemovePodSandbox."},
	PodRollback:   {name: "pod.rollback", help: "Undo a creation that failed."},
	PodRecord:     {name: "pod.record", help: "Plan the pod and write its intent record."},
	PodFiles:      {name: "pod.files", help: "Create the log directory, resolv.conf, hostname and /dev/shm, and the cgroup with the driver cgroupfs."},
	PodNamespaces: {name: "pod.namespaces", help: "Create and pin the namespaces, and set the sysctls."},
	PodPause:      {name: "pod.pause", help: "Start the pause process and move it to its cgroup."},

	CNIAdd:     {name: "cni.add", help: "Attach one interface of the pod to a network. Attributes network and interface."},
	CNIDel:     {name: "cni.del", help: "Detach one interface of the pod from a network. Attributes network and interface."},
	CNICheck:   {name: "cni.check", help: "Check one interface of the pod. Attributes network and interface."},
	CNIPlugin:  {name: "cni.plugin", help: "Execute one CNI plugin, or do its work without a process. Attributes plugin, command and, without a process, built-in."},
	HostPorts:  {name: "network.hostports", help: "Add or remove the host ports of the pod in nftables."},
	Masquerade: {name: "network.masquerade", help: "Set up masquerading for the first pod of a network."},

	ContainerCreate:   {name: "container.create", help: "CreateContainer, without the wait of a repeated request for the first one."},
	ContainerStart:    {name: "container.start", help: "StartContainer."},
	ContainerStop:     {name: "container.stop", help: "End the processes of a container."},
	ContainerRemove:   {name: "container.remove", help: "Remove an exited container."},
	ContainerRollback: {name: "container.rollback", help: "Undo a creation that failed."},
	ImageResolve:      {name: "image.resolve", help: "Find the image of the container, and images that are mounted, in the store."},
	RootFSMount:       {name: "rootfs.mount", help: "Mount the root file system of the container over the layers of its image."},
	RootFSUnmount:     {name: "rootfs.unmount", help: "Unmount and delete the root file system of the container."},
	VolumeMount:       {name: "volume.mount", help: "Mount the images that the container uses as volumes."},
	BundleWrite:       {name: "bundle.write", help: "Write the bundle, which includes the steps spec.resolve and spec.build."},
	SpecResolve:       {name: "spec.resolve", help: "Resolve the user, mounts, devices and security profiles of the container on the host and in the root file system."},
	SpecBuild:         {name: "spec.build", help: "Build the OCI config, with the changes of CDI devices and of NRI plugins."},
	GuestCreate:       {name: "guest.create", help: "Create the kernel in user space in which all containers of the pod run (gVisor)."},

	MonitorStart:  {name: "monitor.start", help: "Start the monitor process."},
	RuntimeCreate: {name: "runtime.create", help: "Wait for the monitor, which executes the create command of the OCI runtime."},
	RuntimeStart:  {name: "runtime.start", help: "Run the process of the container with the OCI runtime."},
	RuntimeCall:   {name: "runtime.call", help: "Execute the OCI runtime. Attribute command."},

	CgroupCreate: {name: "cgroup.create", help: "Create a cgroup."},
	CgroupRemove: {name: "cgroup.remove", help: "Kill the processes of a cgroup and remove the cgroup."},
	SystemdScope: {name: "systemd.scope", help: "Create a scope with systemd."},
	SystemdSlice: {name: "systemd.slice", help: "Stop a slice with systemd."},

	NRI: {name: "nri", help: "Call the NRI plugins. Attribute event."},

	ImagePull:     {name: "image.pull", help: "PullImage, without the wait of a repeated request for the first one. Attribute image."},
	ImageSource:   {name: "image.source", help: "Pull from one registry or mirror. Attribute source."},
	ImageManifest: {name: "image.manifest", help: "Read one manifest from the registry."},
	ImageLayer:    {name: "image.layer", help: "Download and unpack one layer, or read it from an archive. Attribute layer."},
	ImageStore:    {name: "image.store", help: "Write the image to the disk, including the sync."},

	ImageLoad:  {name: "image.load", help: "Load the images of an archive. Attribute source for an archive in an archive directory."},
	ImageSpool: {name: "image.spool", help: "Receive an archive from a client, or decompress it, into a temporary file."},
	ImageSave:  {name: "image.save", help: "Write an archive of images."},

	LockWait:    {name: "lock.wait", help: "Wait for another operation on the same object. Attribute lock.", waits: true},
	NetworkWait: {name: "network.wait", help: "Wait for the check of the network that follows the start of the daemon.", waits: true},
	LayerWait:   {name: "layer.wait", help: "Wait for another pull that unpacks the same layer. Attribute layer.", waits: true},
	ExitWait:    {name: "exit.wait", help: "Wait until the process of the container has exited after a signal. Attribute signal.", waits: true},
}

// String returns the name as users see it, for example "cni.add".
func (n Name) String() string {
	if n >= endOfNames {
		return ""
	}
	return descriptions[n].name
}

// Help returns a sentence that describes the step, for documentation.
func (n Name) Help() string {
	if n >= endOfNames {
		return ""
	}
	return descriptions[n].help
}

// Waits reports whether the step does nothing but wait for another operation or for a process.
func (n Name) Waits() bool { return n < endOfNames && descriptions[n].waits }

// Names returns all names.
func Names() []Name {
	all := make([]Name, 0, endOfNames-1)
	for n := Name(1); n < endOfNames; n++ {
		all = append(all, n)
	}
	return all
}
