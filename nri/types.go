// Package nri implements the Node Resource Interface. It notifies plugins of each step in the
// life of pods and containers. Plugins may refuse a step, change a container before it is
// created, and change the limits of containers later.
//
// The library github.com/containerd/nri implements the protocol and merges the changes of
// several plugins. This package translates between the library and the daemon, limits the
// effect of a slow plugin to the requests that wait for the plugin, and ensures that every
// plugin is notified of every pod and container.
//
// The package does not know the packages sandbox and container. Its callers describe pods with
// messages of the NRI protocol and containers with [Container], and implement [Runtime].
package nri

import (
	"context"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Runtime is the container runtime that plugins extend.
type Runtime interface {
	// Pods and Containers return all pods and containers, in all states.
	Pods() []*api.PodSandbox
	Containers() []*Container
	// Update changes the limits of a container, and calls no plugins. It returns
	// ErrNotFound if the container does not exist, and ErrFailedPrecondition if the
	// container has exited.
	Update(ctx context.Context, u Update) error
}

// Container describes a container. A message is made from it only if a plugin is connected.
type Container struct {
	// Status has the fields of the message that Config, Spec and Limits do not determine: the
	// IDs, the image, the state, the PID, the times and the exit. It is not modified.
	Status *api.Container
	Config *cri.ContainerConfig
	// Spec returns the OCI config of the container.
	Spec func() (*specs.Spec, error)
	// Limits are the current limits.
	Limits Limits
}

// Limits contains resource limits of a container.
type Limits struct {
	// CRI contains the limits that the CRI defines. The values 0 and "" mean "not set".
	CRI *cri.LinuxContainerResources
	// Extra contains the limits that the CRI does not define; nil if there are none.
	Extra *specs.LinuxResources
}

// Update is a change of the limits of a container.
type Update struct {
	ContainerID string
	Limits      Limits // the limits to change
	// Optional means that the request that led to the update succeeds even if the update
	// fails.
	Optional bool
}

// Adjustment contains the changes of plugins to a container that is being created, except for
// changes of its OCI config.
type Adjustment struct {
	// CRI and Extra override the limits of the request, see Limits.
	CRI   *cri.LinuxContainerResources
	Extra *specs.LinuxResources
	// OOMScoreAdj overrides the value of the request, unless it is nil.
	OOMScoreAdj *int
	// BlockIOClass and RDTClass are names of classes that override the classes of the request,
	// unless they are nil. An empty name means no class.
	BlockIOClass, RDTClass *string
	// CDIDevices are the qualified names of CDI devices to inject.
	CDIDevices []string
}
