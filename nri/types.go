// Package nri is the Node Resource Interface: plugins of the node are told of
// each step in the life of pods and containers, may change a container before
// it is made, change limits later, and refuse. The protocol and the merging of
// what several plugins want are github.com/containerd/nri's; this package
// translates, keeps slow plugins from holding up more than their own request,
// and sees to it that no plugin misses a pod or container.
//
// It knows nothing of package sandbox or container: what it is told are the
// types below, and what it needs is the interface [Runtime].
package nri

import (
	"context"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Runtime is what is synchronized with plugins, and what they change.
type Runtime interface {
	// Pods and Containers are all there are, whatever their state.
	Pods() []Pod
	Containers() []Container
	// Update changes the limits of a container, without asking plugins again.
	// ErrNotFound and ErrFailedPrecondition say that it is not there any more, or
	// not alive.
	Update(ctx context.Context, u Update) error
}

// Pod is what plugins are told of a pod sandbox.
type Pod struct {
	ID             string
	Config         *cri.PodSandboxConfig
	RuntimeHandler string
	CgroupParent   string
	Namespaces     []specs.LinuxNamespace // with their paths
	IPs            []string
	PID            int // of its first process, 0 where there is none
	// Overhead and Resources are those in force.
	Overhead, Resources *cri.LinuxContainerResources
}

// State is a container's state.
type State int

// The states that plugins know.
const (
	Unknown State = iota
	Created
	Running
	Stopped
)

// Container is what plugins are told of a container.
type Container struct {
	ID, PodID string
	Config    *cri.ContainerConfig
	// Spec returns the OCI config that it was or will be made from. It is called
	// only when there is a plugin to be told.
	Spec func() (*specs.Spec, error)
	// Limits are those in force, Extra what they have beyond the words of the CRI.
	Limits *cri.LinuxContainerResources
	Extra  *specs.LinuxResources
	// Image is its image as the request named it, ImageID the digest of the
	// image's config.
	Image, ImageID string

	State                            State
	PID                              int
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int32
	Reason, Message                  string
}

// Update is a change of a container's limits.
type Update struct {
	ContainerID string
	// Limits are the fields to change, as in UpdateContainerResources; Extra is
	// what the CRI has no word for.
	Limits *cri.LinuxContainerResources
	Extra  *specs.LinuxResources
	// Optional: what asked for it goes on when it fails.
	Optional bool
}

// Adjustment is what plugins want of a container that is about to be made,
// beyond what they changed in its OCI config.
type Adjustment struct {
	// Asked says whether there was a plugin.
	Asked bool
	// Limits and Extra go over those of the request, see Update.
	Limits *cri.LinuxContainerResources
	Extra  *specs.LinuxResources
	// OOMScoreAdj is nil for the request's.
	OOMScoreAdj *int
	// BlockIOClass and RDTClass are names of the operator's classes, "" for none;
	// nil for the request's.
	BlockIOClass, RDTClass *string
	// CDIDevices are to be injected, by their qualified names.
	CDIDevices []string
	// Others are changes to other containers, to be made first.
	Others []Update
}
