package container

import (
	"fmt"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// resolveDevices looks up the requested devices. A privileged container also has all
// devices of the host, unless it is root only in a user namespace.
func (m *Manager) resolveDevices(s *containerspec.Spec, userNS bool) ([]oci.Device, error) {
	var devices []oci.Device
	if s.Security.Privileged && !userNS {
		all, err := oci.AllDevices()
		if err != nil {
			return nil, err
		}
		devices = all
	}
	for i, d := range s.Devices {
		found, err := oci.HostDevice(d.HostPath, d.ContainerPath, d.Access)
		if err != nil {
			return nil, fmt.Errorf("config.devices[%d].%w", i, err)
		}
		if m.cfg.DeviceOwnerIsUser {
			setDeviceOwner(found, s.User)
		}
		devices = append(devices, found...)
	}
	return devices, nil
}

// setDeviceOwner makes the ids that the request names the owner of the device nodes. A
// user that is not root could not open a device that only its owner may open.
func setDeviceOwner(devices []oci.Device, u containerspec.User) {
	for i := range devices {
		if u.Account != nil && !u.MustExist {
			uid := u.Account.ID
			devices[i].UID = &uid
		}
		if u.Group != nil {
			gid := u.Group.ID
			devices[i].GID = &gid
		}
	}
}

// injectDevices adds the edits of CDI devices to an OCI config.
func (m *Manager) injectDevices(config *specs.Spec, names []string) error {
	if err := m.cfg.CDI.Inject(config, names); err != nil {
		return fmt.Errorf("config.%w", err)
	}
	return nil
}

// supportedBlockIO returns the block I/O limits of a container. It drops weights if no I/O scheduler of
// the node supports weights, because then the files for weights do not exist.
func (m *Manager) supportedBlockIO(c *container, p *plan) *specs.LinuxBlockIO {
	b := p.blockIO
	if b == nil || b.Weight == nil && b.WeightDevice == nil || m.cfg.Cgroups.HasBlockIOWeight(p.pod.CgroupParent) {
		return b
	}
	c.log().Warn("weights of block I/O are not enforced: no I/O scheduler of this node supports them")
	rates := *b
	rates.Weight, rates.WeightDevice = nil, nil
	return &rates
}
