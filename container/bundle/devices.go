package bundle

import (
	"fmt"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/host"
)

// Devices looks up the requested devices. A privileged container also has all
// devices of the host, unless it is root only in a user namespace. With ownerIsUser, the
// user and group of the request own the requested devices.
func Devices(s *containerspec.Spec, userNS, ownerIsUser bool) ([]oci.Device, error) {
	var devices []oci.Device
	if s.Security.Privileged && !userNS {
		all, err := host.AllDevices()
		if err != nil {
			return nil, err
		}
		devices = all
	}
	for i, d := range s.Devices {
		found, err := host.Devices(d.HostPath, d.ContainerPath, d.Access)
		if err != nil {
			return nil, fmt.Errorf("config.devices[%d].%w", i, err)
		}
		if ownerIsUser {
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
