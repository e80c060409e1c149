// Package sandbox owns pod sandboxes: their namespaces, network, files and
// records, and their recovery. It knows nothing of containers' inner life, of
// images or of gRPC servers; what it needs of containers is the interface
// [Containers]. Requests are kept as the CRI messages they came as, which are
// treated as immutable data.
package sandbox

import (
	"context"
	"net/netip"
	"time"

	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/systemd"
	"github.com/criserver/criserver/sandbox/network"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Containers is what pods need of containers.
type Containers interface {
	// StopPod ends every container of a pod by force, and returns when all have
	// ended.
	StopPod(ctx context.Context, podID string) error
	// RemovePod removes every container of a pod.
	RemovePod(ctx context.Context, podID string) error
}

// Cgroups is what pods need of the host's control groups. Paths are absolute
// in the hierarchy.
type Cgroups interface {
	// Make makes the cgroup with its parents where it is missing and holds it
	// until Release.
	Make(path string) error
	// Release gives back what Make took; what was made and is empty goes.
	Release(path string)
	// Remove removes an empty cgroup, whoever made it.
	Remove(path string) error
	// Add moves a process into a cgroup that exists.
	Add(path string, pid int) error
	// Stats reads what a cgroup and all below it have used.
	Stats(path string) (cgroup.Stats, error)
	// Pids returns the processes in a cgroup and below it.
	Pids(path string) ([]int, error)
}

// Units is what pods need of systemd. *systemd.Manager implements it.
type Units interface {
	// StartScope moves a process into a new scope.
	StartScope(ctx context.Context, s systemd.Scope) error
	// Stop stops a unit. A unit that systemd does not know is no error.
	Stop(ctx context.Context, unit string) error
	// List returns the loaded units whose names match a glob pattern.
	List(ctx context.Context, pattern string) ([]string, error)
}

// Namespaces holds the paths of a pod's pinned namespaces; empty where the pod
// uses the host's or each container makes its own.
type Namespaces struct {
	Net, IPC, UTS, PID, User string
}

// Pod is an immutable snapshot of a pod sandbox.
type Pod struct {
	ID             string
	Config         *cri.PodSandboxConfig // as requested; never written to
	RuntimeHandler string                // as requested; "" is the default handler
	CreatedAt      time.Time
	Ready          bool
	// Unread says that the pod's record could not be read: Config and what follows
	// from it can be made up.
	Unread bool
	// NotReadyReason says why Ready is false, in words for people.
	NotReadyReason string
	Namespaces     Namespaces
	// PausePID is the pid of the built-in pause, or 0.
	PausePID int
	// PauseUnit is the systemd scope of the pause, or "".
	PauseUnit string
	// IPs are all the pod's addresses, the primary one first; the host-network
	// pod has none. A stopped pod keeps those it had.
	IPs []netip.Addr
	// CNIResult is the CNI result of the default network, JSON, or nil.
	CNIResult []byte
	// Interfaces are those on further networks, with their CNI results. Their
	// addresses are not among IPs.
	Interfaces []network.Interface
	// NetworkFault is what the plugins found wrong with a pod that an earlier
	// daemon made, or "".
	NetworkFault string
	// CgroupParent is the pod's cgroup, below which its containers have theirs:
	// a path for the cgroupfs driver, the name of a slice for systemd's.
	CgroupParent string
	// Overhead and Resources are what the pod as a whole may have, after updates;
	// nil where nobody said.
	Overhead, Resources *cri.LinuxContainerResources
	// ProcessLabel and MountLabel are the pod's SELinux labels, or "".
	ProcessLabel, MountLabel string
	// HostName is the name inside the pod.
	HostName string
	// Files that are bind mounted into containers and belong to their root; Shm is "" when the pod uses
	// the host's IPC namespace.
	Hosts, Hostname, ResolvConf, Shm string
}
