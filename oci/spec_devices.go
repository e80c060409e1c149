package oci

import (
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Device is a device node of the host, as it is to appear in the container.
type Device struct {
	specs.LinuxDevice
	Access string // some of "rwm"
}

// CheckAccess says whether a CRI device permission string is well formed; the
// empty one means all.
func CheckAccess(permissions string) error {
	if strings.Trim(permissions, "rwm") != "" || len(permissions) > 3 {
		return invalid("permissions %q must be made of r, w and m", permissions)
	}
	return nil
}

// devices: nothing is allowed but what the runtime itself adds (null, zero, tty
// and their like) and what was asked for; a privileged container may use all.
func (c *build) devices() error {
	l := c.spec.Linux
	l.Resources = &specs.LinuxResources{}
	for _, d := range c.in.Devices {
		// A later request for the same path wins over the host's list.
		l.Devices = slices.DeleteFunc(l.Devices, func(o specs.LinuxDevice) bool { return o.Path == d.Path })
		l.Devices = append(l.Devices, d.LinuxDevice)
	}
	if c.privileged() {
		l.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return nil
	}
	l.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range c.in.Devices {
		access := d.Access
		if access == "" {
			access = "rwm"
		}
		if !filepath.IsAbs(d.Path) {
			return invalid("device path %q must be absolute", d.Path)
		}
		major, minor := d.Major, d.Minor
		l.Resources.Devices = append(l.Resources.Devices, specs.LinuxDeviceCgroup{
			Allow: true, Type: d.Type, Major: &major, Minor: &minor, Access: access,
		})
	}
	return nil
}
