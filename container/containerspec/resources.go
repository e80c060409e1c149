package containerspec

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/criserver/criserver/internal/rootpath"
	"github.com/criserver/criserver/oci/cdi"
	"github.com/criserver/criserver/oci/qos"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Device is a requested device node of the host, or a directory of device nodes.
type Device struct {
	HostPath      string
	ContainerPath string // the host path if the request has none
	// Access is made of r, w and m, each at most once; "" means all.
	Access string
}

func (p *parser) devices() error {
	for i, d := range p.Config.GetDevices() {
		device, err := parseDevice(d)
		if err != nil {
			return fmt.Errorf("config.devices[%d].%w", i, err)
		}
		p.spec.Devices = append(p.spec.Devices, device)
	}
	requested := make([]string, len(p.Config.GetCDIDevices()))
	for i, d := range p.Config.GetCDIDevices() {
		requested[i] = d.GetName()
	}
	names, err := cdi.Names(requested, p.Config.GetAnnotations())
	if err != nil {
		return fmt.Errorf("config.%w", err)
	}
	p.spec.CDIDevices = names
	return nil
}

func parseDevice(d *cri.Device) (Device, error) {
	switch {
	case !cleanAbsolute(d.GetHostPath()):
		return Device{}, invalid("host_path %q must be an absolute path without \"..\"", d.GetHostPath())
	case d.GetContainerPath() != "" && !cleanAbsolute(d.GetContainerPath()):
		return Device{}, invalid("container_path %q must be an absolute path without \"..\"", d.GetContainerPath())
	case rootpath.TooLong(d.GetHostPath()):
		return Device{}, invalid("host_path %s", rootpath.LengthRule)
	case rootpath.TooLong(d.GetContainerPath()):
		return Device{}, invalid("container_path %s", rootpath.LengthRule)
	}
	return Device{
		HostPath: d.GetHostPath(), ContainerPath: cmp.Or(d.GetContainerPath(), d.GetHostPath()), Access: d.GetPermissions(),
	}, checkAccess(d.GetPermissions())
}

func checkAccess(permissions string) error {
	if strings.Trim(permissions, "rwm") != "" || len(permissions) > 3 {
		return invalid("permissions %q must be made of r, w and m", permissions)
	}
	for i := range permissions {
		if strings.LastIndexByte(permissions, permissions[i]) != i {
			return invalid("permissions %q names one of r, w and m twice", permissions)
		}
	}
	return nil
}

func (p *parser) resources() error {
	p.spec.Resources = p.Config.GetLinux().GetResources()
	if p.Node == nil {
		return nil
	}
	return p.Node.Rules.CheckNewResources(p.spec.Resources)
}

// classes looks up the classes of block I/O and RDT that annotations name. A class that
// does not exist is an error: the container must not run without it unnoticed.
func (p *parser) classes() (err error) {
	if p.Node == nil {
		return nil
	}
	name, own, pod := p.spec.Name, p.spec.Annotations, p.Pod.GetAnnotations()
	if class, annotation := qos.BlockIOClass.Of(name, own, pod); class != "" {
		if p.spec.BlockIO, err = p.Node.BlockIO.Class(class); err != nil {
			return fmt.Errorf("annotation %q: %w", annotation, err)
		}
	}
	if class, annotation := qos.RDTClass.Of(name, own, pod); class != "" {
		if p.spec.RDT, err = p.Node.RDT.Class(class); err != nil {
			return fmt.Errorf("annotation %q: %w", annotation, err)
		}
	}
	return nil
}
