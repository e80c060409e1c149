package container

import (
	"slices"

	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/basespec"
)

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
func (s *Settings) defaultEnv(h Handler) []string {
	if h.Base == nil {
		return s.DefaultEnv
	}
	return slices.Concat(s.DefaultEnv, h.Base.Env)
}
