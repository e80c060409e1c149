package container

import (
	"fmt"

	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/cdi"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func validateDevices(c *cri.ContainerConfig) error {
	for i, d := range c.GetDevices() {
		if err := oci.CheckDevice(d); err != nil {
			return fmt.Errorf("config.devices[%d].%w", i, err)
		}
	}
	_, err := cdiNames(c)
	return err
}

// cdiNames lists the devices of vendors that a request names.
func cdiNames(c *cri.ContainerConfig) ([]string, error) {
	requested := make([]string, len(c.GetCDIDevices()))
	for i, d := range c.GetCDIDevices() {
		requested[i] = d.GetName()
	}
	names, err := cdi.Names(requested, c.GetAnnotations())
	if err != nil {
		return nil, fmt.Errorf("config.%w", err)
	}
	return names, nil
}

// injectDevices adds what the devices of vendors need to a config.
func (m *Manager) injectDevices(c *container, res *oci.Result) error {
	names, err := cdiNames(c.config)
	if err != nil {
		return err
	}
	if err := m.cfg.CDI.Inject(res.Spec, names); err != nil {
		return fmt.Errorf("config.%w", err)
	}
	return nil
}

// resolveDevices looks up the requested devices; a privileged container has all
// of the host's besides, unless it is root in a user namespace only.
func (m *Manager) resolveDevices(c *cri.ContainerConfig, userNS bool) ([]oci.Device, error) {
	var devices []oci.Device
	if c.GetLinux().GetSecurityContext().GetPrivileged() && !userNS {
		all, err := oci.AllDevices()
		if err != nil {
			return nil, err
		}
		devices = all
	}
	for i, d := range c.GetDevices() {
		found, err := oci.HostDevice(d)
		if err != nil {
			return nil, fmt.Errorf("config.devices[%d].%w", i, err)
		}
		if m.cfg.DeviceOwnerIsUser {
			giveToUser(found, c.GetLinux().GetSecurityContext())
		}
		devices = append(devices, found...)
	}
	return devices, nil
}

// giveToUser is for users that are not root: they could not open a device that
// only its owner may.
func giveToUser(devices []oci.Device, sc *cri.LinuxContainerSecurityContext) {
	for i := range devices {
		if sc.GetRunAsUser() != nil {
			uid := uint32(sc.GetRunAsUser().GetValue()) //nolint:gosec // was validated
			devices[i].UID = &uid
		}
		if sc.GetRunAsGroup() != nil {
			gid := uint32(sc.GetRunAsGroup().GetValue()) //nolint:gosec // was validated
			devices[i].GID = &gid
		}
	}
}
