// Package container manages containers: it creates, starts, stops and removes them, keeps their state, and recovers
// the state after a restart of the daemon. It never imports package sandbox or image; the interfaces [Pods] and
// [Images] are the parts of these packages that it uses. The CRI messages are stored as they were received, and are
// never written to.
//
// The packages below do not know the [Manager]. Package containerspec parses the requests, bundle makes the OCI
// configs, record has the files of a container, limits changes limits, exits finds out how containers have exited, and
// guest manages the guests of pods.
package container

import (
	"context"
	"os"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container/limits"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/proc"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pods provides the pod sandboxes of containers.
type Pods interface {
	// Pod returns the pod with this id or unique prefix of an id, ready or not. It returns
	// ErrNotFound if there is none.
	Pod(id string) (Pod, error)
	// MarkNotReady makes a ready pod not ready. reason is a sentence for the log.
	MarkNotReady(id, reason string)
}

// Pod has the properties of a pod sandbox that its containers use.
type Pod struct {
	ID             string
	Ready          bool
	Config         *cri.PodSandboxConfig // nil if it cannot be read
	RuntimeHandler string
	CgroupParent   string
	// PauseUnit is the systemd scope of the pause process, or "".
	PauseUnit string
	// NetNS, IPCNS, UTSNS and UserNS are the paths of the namespaces of the pod, or "" for
	// the namespaces of the host. PIDNS is "" if the containers do not share a PID
	// namespace.
	NetNS, IPCNS, UTSNS, PIDNS, UserNS string
	// ProcessLabel and MountLabel are the SELinux labels of the pod, or "".
	ProcessLabel, MountLabel string
	// Hosts, Hostname and ResolvConf are files that are bind mounted into containers. Shm is
	// "" if containers use the /dev/shm of the host.
	Hosts, Hostname, ResolvConf, Shm string
}

// Images provides the images and the root file systems of containers.
type Images interface {
	// Image returns the image with this reference: an id, a tag or a digest.
	Image(ref string) (Image, error)
	// Mount makes the root file system of a container from an image and mounts it. The
	// image is in use until Unmount.
	Mount(ctx context.Context, r RootFS) error
	// MountVolume mounts an image read-only and returns the path. The image is in use until
	// Unmount.
	MountVolume(ctx context.Context, v ImageVolume) (path string, err error)
	// Unmount undoes Mount and MountVolume, and deletes the writable layer. An unknown id is
	// no error.
	Unmount(ctx context.Context, containerID string) error
}

// Monitors starts monitor processes. *conmon.Launcher implements Monitors.
type Monitors interface {
	// Create starts a monitor and returns the first process of the container and the
	// monitor when the container is created. If Create fails, no process and no mount is
	// left, but files can be left.
	Create(ctx context.Context, spec conmon.Spec) (started conmon.Started, monitor proc.Ref, err error)
}

// Watcher watches processes. *proc.Watcher implements Watcher. The caller of New runs it.
type Watcher interface {
	// Watch calls exited when the process has exited.
	Watch(r proc.Ref, exited func(pidfd *os.File)) error
}

// Observer is notified of events that metrics count. Its methods must not wait.
type Observer interface {
	// ContainerExited is called when the exit of a container is recorded.
	ContainerExited(e ExitFacts)
	// MonitorCrashed is called when a monitor has exited before its container.
	MonitorCrashed()
}

// ExitFacts describes the exit of a container for an Observer.
type ExitFacts struct {
	Reason    string // one of the reasons of an exit
	OOMKilled bool   // the OOM killer killed a process of the container
	LogLost   int64  // bytes of the log that could not be written
}

// Cgroups controls the cgroups of containers. Paths are absolute in the
// hierarchy. *cgroup.Tree implements Cgroups.
type Cgroups interface {
	Kill(ctx context.Context, path string) error
	Remove(path string) error
	// Freeze freezes all processes in a cgroup and its descendants. Thaw undoes Freeze.
	Freeze(ctx context.Context, path string) error
	Thaw(path string) error
	Stats(path string) (cgroup.Stats, error)
	// ProcessCgroup returns the cgroup of a process.
	ProcessCgroup(pid int) (string, error)
	// HasBlockIOWeight reports whether a cgroup can have weights of block I/O.
	HasBlockIOWeight(path string) bool
	limits.Cgroups
}

// Image has the properties of an image that its containers use.
type Image struct {
	ID string // digest of the image config
	// Ref is shown as the image of a container whose request has only the image id.
	Ref    string
	Config ispec.ImageConfig
	// Annotations are the annotations of the manifest.
	Annotations map[string]string
}

// RootFS is a root file system to mount.
type RootFS struct {
	ImageID, ContainerID string
	Target               string // an existing directory
	// UserNS is the user namespace in which the files have the owners that the image says,
	// or "" for the host's.
	UserNS string
	Label  string // SELinux label of all files, or ""
}

// ImageVolume is an image, or a part of it, to mount as a volume.
type ImageVolume struct {
	ContainerID string
	Index       int // of the mount in the request
	ImageID     string
	SubPath     string // a directory or file in the image; "" for the complete image
	UserNS      string // user namespace of the owners of the files; "" for the host's
	Label       string // SELinux label of all files, or ""
}

// State is the state of a container.
type State int

// The states of the CRI, in the order in which a container has them. Unknown is the state
// of a container that may be running, but whose processes or files the manager cannot
// observe.
const (
	Created State = iota
	Running
	Exited
	Unknown
)

// The reasons of an exit that the kubelet knows.
const (
	ReasonCompleted          = "Completed"
	ReasonError              = "Error"
	ReasonOOMKilled          = "OOMKilled"
	ReasonContainerCannotRun = "ContainerCannotRun"
)

// Snapshot is an immutable view of a container.
type Snapshot struct {
	ID             string
	PodID          string
	Config         *cri.ContainerConfig // as requested
	PodConfig      *cri.PodSandboxConfig
	RuntimeHandler string // never ""
	ImageID        string
	ImageRef       string // the image as the request named it
	LogPath        string // absolute; "" for no log
	State          State
	PID            int // of the first process; 0 after the exit
	CreatedAt      time.Time
	StartedAt      time.Time // zero before the start
	FinishedAt     time.Time // zero before the exit
	ExitCode       int32
	Reason         string
	Message        string
	// MonitorLost is true if the monitor exited before the container.
	MonitorLost bool
	// Resources are the resources in force, including updates.
	Resources *cri.LinuxContainerResources
	// Extra are limits from updates that the CRI cannot express.
	Extra *specs.LinuxResources
	// UID, GID and SupplementalGroups are the ids of the first process.
	UID, GID           int64
	SupplementalGroups []int64
	// Mounts are the requested mounts. Mounts of images are read-only and have the id of the
	// image.
	Mounts []*cri.Mount
	// StopSignal is the signal that Stop sends first.
	StopSignal unix.Signal
	// RootFS is the mount point of the root file system, CgroupPath the cgroup of the
	// container in the hierarchy, and RunDir the directory with the bundle.
	RootFS, CgroupPath, RunDir string
	// ProcessCgroup is the cgroup of the processes, which has the limits of the container.
	// It is CgroupPath or, with crun and the systemd driver, a cgroup below CgroupPath.
	ProcessCgroup string

	spec *specs.Spec // see withSpec; nil in the snapshots that the Manager publishes
}
