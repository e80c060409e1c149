package bundle

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/host"
)

// deviceRules says which devices a container has.
type deviceRules struct {
	// Additional are devices of all containers.
	Additional []containerspec.Device
	// NoHostDevices gives privileged containers only the devices that other containers have.
	NoHostDevices bool
	// UserNS is true if the container has a user namespace. Its root user may not use all devices.
	UserNS bool
	// OwnerIsUser makes the user and group of the request the owner of the requested devices.
	OwnerIsUser bool
}

// devices looks up the devices of all containers and the requested devices. A privileged container
// also has all devices of the host, unless the rules restrict it.
func (r deviceRules) devices(s *containerspec.Spec) ([]oci.Device, error) {
	var devices []oci.Device
	if s.Security.Privileged && !r.UserNS && !r.NoHostDevices {
		all, err := host.AllDevices()
		if err != nil {
			return nil, err
		}
		devices = all
	}
	for _, d := range r.Additional {
		found, err := host.Devices(d.HostPath, d.ContainerPath, d.Access)
		if err != nil {
			//nolint:errorlint // the configuration is invalid, and not the request
			return nil, fmt.Errorf("additional device %q of the configuration: %v: %w", d.HostPath, err, errdefs.ErrFailedPrecondition)
		}
		devices = append(devices, found...)
	}
	for i, d := range s.Devices {
		found, err := host.Devices(d.HostPath, d.ContainerPath, d.Access)
		if err != nil {
			return nil, fmt.Errorf("config.devices[%d].%w", i, err)
		}
		if r.OwnerIsUser {
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
