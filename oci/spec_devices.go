package oci

import (
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Device is a device node of the host as it appears in the container.
type Device struct {
	specs.LinuxDevice
	Access string // a combination of r, w and m
	// HostPath is the path of the node on the host.
	HostPath string
}

// devices sets the device rules. A container may use only requested devices, those that the
// rules of the base config allow, and those that the runtime adds itself, such as null, zero and
// tty. A privileged container may use all devices, unless it has a user namespace or the runtime
// handler restricts it.
func (c *specBuilder) devices() error {
	wanted, err := c.requestedDevices()
	if err != nil {
		return err
	}
	l, everything := c.spec.Linux, c.privileged() && c.in.Namespaces.User == "" && !c.in.OnlyOwnDevices
	l.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: everything, Access: "rwm"}}}
	for _, d := range c.in.Base.Devices {
		if !slices.ContainsFunc(wanted, func(w Device) bool { return w.Path == d.Path }) {
			c.addNode(Device{LinuxDevice: d, HostPath: d.Path})
		}
	}
	if !everything {
		l.Resources.Devices = append(l.Resources.Devices, c.in.Base.DeviceRules...)
	}
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

// addNode adds a device node. In a user namespace, root cannot make device nodes, so the host's
// node is bind mounted. A runtime would look for the host's node at the path in the container.
func (c *specBuilder) addNode(d Device) {
	if c.in.Namespaces.User == "" || d.HostPath == "" {
		c.spec.Linux.Devices = append(c.spec.Linux.Devices, d.LinuxDevice)
		return
	}
	c.spec.Mounts = append(c.spec.Mounts, specs.Mount{
		Destination: d.Path, Type: "bind", Source: d.HostPath, Options: []string{"bind", "rprivate", "nosuid", "noexec"},
	})
}

// requestedDevices returns one device for each path. A later request takes precedence.
func (c *specBuilder) requestedDevices() ([]Device, error) {
	var wanted []Device
	index := make(map[string]int, len(c.in.Devices))
	for _, d := range c.in.Devices {
		if !filepath.IsAbs(d.Path) {
			return nil, invalid("device path %q must be absolute", d.Path)
		}
		if i, ok := index[d.Path]; ok {
			wanted[i] = d
			continue
		}
		index[d.Path] = len(wanted)
		wanted = append(wanted, d)
	}
	return wanted, nil
}
