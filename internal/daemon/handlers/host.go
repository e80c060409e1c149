package handlers

import (
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/oci"
)

// Host is the part of the host that runtime handlers use.
type Host struct {
	OCI            oci.Host
	Cgroups        *cgroup.Tree
	CgroupParent   string
	SystemdCgroups bool   // the runtimes place cgroups with systemd
	MonitorPath    string // path of the monitor's binary, which trials run in containers
}

// makeCgroupParent creates the cgroup parent and keeps the cgroup until release is called.
// With the systemd driver, systemd creates the slice.
func (h *Host) makeCgroupParent() (release func(), err error) {
	if h.SystemdCgroups {
		return func() {}, nil
	}
	if err := h.Cgroups.Make(h.CgroupParent); err != nil {
		return nil, err
	}
	return func() { h.Cgroups.Release(h.CgroupParent) }, nil
}
