package oci

import (
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Device is a device node of the host, as it is to appear in the container.
type Device struct {
	specs.LinuxDevice
	Access string // some of "rwm"
	// HostPath is where the node is on the host.
	HostPath string
}

// devices: nothing is allowed but what the runtime itself adds (null, zero, tty
// and their like) and what was asked for; a privileged container may use all,
// unless the machine is kept from its root by a user namespace.
func (c *specBuilder) devices() error {
	wanted, err := c.requestedDevices()
	if err != nil {
		return err
	}
	l, everything := c.spec.Linux, c.privileged() && c.in.Namespaces.User == ""
	l.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: everything, Access: "rwm"}}}
	for _, d := range wanted {
		c.addNode(d)
		if everything {
			continue
		}
		access := d.Access
		if access == "" {
			access = "rwm"
		}
		major, minor := d.Major, d.Minor
		l.Resources.Devices = append(l.Resources.Devices, specs.LinuxDeviceCgroup{
			Allow: true, Type: d.Type, Major: &major, Minor: &minor, Access: access,
		})
	}
	return nil
}

// addNode: root in a user namespace may not make a node, so it gets the host's.
// A runtime would look for that at the path that the container is to have it at.
func (c *specBuilder) addNode(d Device) {
	if c.in.Namespaces.User == "" || d.HostPath == "" {
		c.spec.Linux.Devices = append(c.spec.Linux.Devices, d.LinuxDevice)
		return
	}
	c.spec.Mounts = append(c.spec.Mounts, specs.Mount{
		Destination: d.Path, Type: "bind", Source: d.HostPath, Options: []string{"bind", "rprivate", "nosuid", "noexec"},
	})
}

// requestedDevices has one for each path: a later request wins over an earlier one
// and over the host's list.
func (c *specBuilder) requestedDevices() ([]Device, error) {
	var wanted []Device
	at := make(map[string]int, len(c.in.Devices))
	for _, d := range c.in.Devices {
		if !filepath.IsAbs(d.Path) {
			return nil, invalid("device path %q must be absolute", d.Path)
		}
		if i, ok := at[d.Path]; ok {
			wanted[i] = d
			continue
		}
		at[d.Path] = len(wanted)
		wanted = append(wanted, d)
	}
	return wanted, nil
}
