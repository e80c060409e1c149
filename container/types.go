// Package container owns containers: their records, root file systems, bundles
// and monitors, their state and its recovery. It never imports package sandbox
// or image; what it needs of them are the interfaces [Pods] and [Images].
// Requests are kept as the CRI messages they came as, which are treated as
// immutable data.
package container

import (
	"context"
	"os"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/proc"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pods is what containers need of pod sandboxes.
type Pods interface {
	// Pod returns the pod of a full id or a unique prefix, ready or not.
	// ErrNotFound when there is none.
	Pod(id string) (Pod, error)
	// Lose makes a ready pod not ready, for a reason in words for people, when
	// something has ended without which it cannot go on.
	Lose(id, why string)
}

// Pod is what a container takes from its pod sandbox.
type Pod struct {
	ID             string
	Ready          bool
	Config         *cri.PodSandboxConfig // nil where it is not known
	RuntimeHandler string
	CgroupParent   string
	// PauseUnit is the systemd scope of the pod's pause, or "".
	PauseUnit string
	// Paths of the pod's namespaces, empty for the host's, or for a new one of
	// the container's own in the case of PID.
	NetNS, IPCNS, UTSNS, PIDNS, UserNS string
	// ProcessLabel and MountLabel are its SELinux labels, or "".
	ProcessLabel, MountLabel string
	// Files bind mounted into containers; Shm "" where the host's is used.
	Hosts, Hostname, ResolvConf, Shm string
}

// Images is what containers need of the image store.
type Images interface {
	// Image returns the image that ref, an id, a tag or a digest, names.
	Image(ref string) (Image, error)
	// Mount makes the container's root file system from the image and mounts it.
	// From then on the image is in use.
	Mount(ctx context.Context, r RootFS) error
	// MountVolume mounts an image read-only and returns where; from then on the
	// image is in use.
	MountVolume(ctx context.Context, v ImageVolume) (path string, err error)
	// Unmount undoes Mount and MountVolume and drops the writable layer. Unknown
	// ids are no error.
	Unmount(ctx context.Context, containerID string) error
}

// Monitors starts monitor processes; *conmon.Launcher does.
type Monitors interface {
	// Create starts a monitor and returns when the container is created, with
	// its init and the monitor itself. When it fails nothing is left but files.
	Create(ctx context.Context, spec conmon.Spec) (started conmon.Started, monitor proc.Ref, err error)
}

// Watcher tells of the end of processes; *proc.Watcher does. Whoever made it
// runs it.
type Watcher interface {
	Watch(r proc.Ref, ended func(pidfd *os.File)) error
}

// Cgroups is what containers need of the host's cgroups; paths are absolute in
// the hierarchy. *cgroup.Tree does it.
type Cgroups interface {
	Kill(ctx context.Context, path string) error
	Remove(path string) error
	Stats(path string) (cgroup.Stats, error)
	// ProcessCgroup returns the cgroup of a process.
	ProcessCgroup(pid int) (string, error)
	// V2 says whether the controllers are on the unified hierarchy.
	V2() bool
	// Pids returns the processes in a cgroup and below it.
	Pids(path string) ([]int, error)
	// HasBlockIOWeight says whether weights of block I/O can be set.
	HasBlockIOWeight(path string) bool
	// Limits reads the limits, with those of the unified hierarchy's further
	// files; SetLimits puts them back.
	Limits(path string, unified ...string) ([]cgroup.Limit, error)
	SetLimits(path string, limits []cgroup.Limit) error
	// SetHugetlb limits hugepages, and EnableHugetlb makes that possible.
	SetHugetlb(path string, limits map[string]uint64) error
	EnableHugetlb(path string) error
	// Reclaim tries to get the use of memory down to limit and returns it.
	Reclaim(path string, limit uint64) (used uint64)
}

// Image is what a container takes from its image.
type Image struct {
	ID string // the config's digest
	// Ref is the reference to show when the request has none: a tag or the id.
	Ref    string
	Config ispec.ImageConfig
}

// RootFS is a root file system to be mounted.
type RootFS struct {
	ImageID, ContainerID string
	Target               string // an existing directory
	UserNS               string // in which the files belong to whom the image says; "" for the host's
	Label                string // SELinux label of all files, or ""
}

// ImageVolume is an image, or a part of it, that a container has as a volume.
type ImageVolume struct {
	ContainerID string
	Index       int // of the mount in the request
	ImageID     string
	SubPath     string // a directory or file in the image; "" for all of it
	UserNS      string // whose ids its files are to have; "" for the host's
	Label       string // SELinux label of all files, or ""
}

// State is derived from the facts that are known of a container.
type State int

// The states of the CRI, in the order of a container's life. Unknown is a
// container whose process can be neither found nor declared dead.
const (
	Created State = iota
	Running
	Exited
	Unknown
)

// Reasons of an end, as the kubelet knows them.
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
	Config         *cri.ContainerConfig // as requested; never written to
	PodConfig      *cri.PodSandboxConfig
	RuntimeHandler string // effective handler
	ImageID        string
	ImageRef       string // the image as the request named it
	LogPath        string // absolute; "" for no log
	State          State
	PID            int // of the init process; 0 unless created or running
	CreatedAt      time.Time
	StartedAt      time.Time // zero until started
	FinishedAt     time.Time // zero until ended
	ExitCode       int32
	Reason         string
	Message        string
	// Resources are those in force, after updates.
	Resources *cri.LinuxContainerResources
	// Extra are limits that updates have set for which the CRI has no word.
	Extra *specs.LinuxResources
	// User is who the first process runs as.
	UID, GID           int64
	SupplementalGroups []int64
	// Mounts are the effective mounts asked for by the request. Those of images
	// are read-only and say which image it is.
	Mounts []*cri.Mount
	// StopSignal is the signal that Stop sends first.
	StopSignal unix.Signal
	// RootFS is the mount point of the root file system, CgroupPath the
	// container's cgroup in the hierarchy, RunDir where its bundle is.
	RootFS, CgroupPath, RunDir string
	// ProcessCgroup is the cgroup of the container's processes, which has the
	// container's limits. It is CgroupPath or, with crun and the systemd driver, a
	// cgroup below it.
	ProcessCgroup string
}
