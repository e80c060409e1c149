package bundle

import (
	"slices"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/basespec"
	"github.com/criserver/criserver/oci/cdi"
	"github.com/criserver/criserver/oci/hooks"
	"github.com/criserver/criserver/oci/qos"
)

// Settings are the settings of the operator for the OCI configs of new containers.
type Settings struct {
	// Builder makes the OCI configs.
	Builder *oci.Builder
	// RefuseMissingHostPaths makes a mount of a host path that does not exist an error. Otherwise a directory is made at
	// the host path. For RequiredHostPaths, a missing path is always an error.
	RefuseMissingHostPaths bool
	RequiredHostPaths      []string
	// MapsSubmounts reports whether a handler can map the ids of a mount together with the
	// ids of its submounts. The function is nil if all handlers can.
	MapsSubmounts func(handler string) bool
	// CDI finds the devices of the Container Device Interface.
	CDI *cdi.Registry
	// DeviceOwnerIsUser makes the user and group of the request the owner of its device
	// nodes. Otherwise the device nodes keep the owner that they have on the host.
	DeviceOwnerIsUser bool
	// AdditionalDevices are devices of all containers.
	AdditionalDevices []containerspec.Device
	// DefaultEnv are variables "NAME=value" of all containers. Variables of the image and of the
	// request replace them.
	DefaultEnv []string
	// Localtime is the host file that containers have at /etc/localtime, or "".
	Localtime string
	// BlockIO and RDT are the classes of the operator, which annotations and plugins name.
	BlockIO qos.BlockIO
	RDT     qos.RDT
	// Hooks are the OCI hooks of the operator.
	Hooks *hooks.Dirs
}

// Handler contains the settings of a runtime handler that affect the OCI configs of new
// containers.
type Handler struct {
	// Base is the config from which the configs of the containers start, or nil.
	Base *basespec.Base
	// Seccomp is the seccomp profile of containers that request RuntimeDefault. If Seccomp is nil, these containers
	// get the profile of the Builder.
	Seccomp *oci.DefaultSeccomp
	// WritableCgroups makes /sys/fs/cgroup writable on cgroup v2.
	WritableCgroups bool
	// PrivilegedWithoutHostDevices gives privileged containers no devices of the host, and with
	// AllDevicesAllowed the right to make and use all of them.
	PrivilegedWithoutHostDevices, AllDevicesAllowed bool
}

// defaultEnv returns the variables that the image and the request replace: the variables of the
// operator and of the handler. The variables of the handler take precedence.
func (r *Request) defaultEnv() []string {
	if r.Handler.Base == nil {
		return r.Settings.DefaultEnv
	}
	return slices.Concat(r.Settings.DefaultEnv, r.Handler.Base.Env)
}
