package podspec

import (
	"path"
	"strings"

	"github.com/criserver/criserver/internal/rootpath"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CgroupDriver says which program creates the cgroups of pods, and thus the form of their names.
type CgroupDriver string

// The cgroup drivers of the kubelet.
const (
	Cgroupfs CgroupDriver = "cgroupfs"
	Systemd  CgroupDriver = "systemd"
)

// cgroupParent parses the cgroup parent. A stored request may have the form of another driver, because the operator
// can change the driver while pods exist; the record of the pod has the cgroup parent in use.
func (p *parser) cgroupParent() (err error) {
	parent := p.config.GetLinux().GetCgroupParent()
	if parent == "" {
		return nil
	}
	if p.node == nil {
		driver := Cgroupfs
		if strings.HasSuffix(parent, ".slice") {
			driver = Systemd
		}
		p.spec.CgroupParent, err = ParseCgroupParent(driver, parent)
		return err
	}
	p.spec.CgroupParent, err = ParseCgroupParent(p.node.CgroupDriver, parent)
	return err
}

// ParseCgroupParent returns the absolute path of a cgroup parent in the cgroup hierarchy. For the systemd driver, it
// returns the name of a slice instead. A parent of the other driver is refused: the kubelet must use the same driver
// as the daemon, or no limit applies to the pods.
func ParseCgroupParent(driver CgroupDriver, parent string) (string, error) {
	const field = "linux.cgroup_parent"
	if strings.ContainsAny(parent, "\n\x00:") {
		return "", invalid(field, "must not contain a line break, NUL or ':'")
	}
	if rootpath.TooLong(parent) {
		return "", invalid(field, rootpath.LengthRule)
	}
	slice := strings.HasSuffix(parent, ".slice")
	if driver == Systemd {
		// If parent is a path, its last element is the name of the systemd unit.
		name := path.Base(parent)
		if !slice || name == ".slice" || hasDotDot(parent) || strings.HasPrefix(name, "-") || strings.Contains(name, "--") || strings.Contains(name, "-.slice") {
			return "", invalid(field, `%q must be the name of a slice, with the suffix ".slice", because the cgroup driver is systemd`, parent)
		}
		return name, nil
	}
	cgroup := path.Clean("/" + parent)
	switch {
	case slice:
		return "", invalid(field, "%q is a systemd slice, but the cgroup driver is cgroupfs", parent)
	case hasDotDot(parent) || cgroup == "/":
		return "", invalid(field, `%q must be below the root cgroup and must not contain ".."`, parent)
	}
	return cgroup, nil
}

func (p *parser) resources() error {
	l := p.config.GetLinux()
	p.spec.Overhead, p.spec.Resources = l.GetOverhead(), l.GetResources()
	if p.node == nil {
		return nil
	}
	return p.node.CheckPodResources("linux.", l.GetOverhead(), l.GetResources())
}

// CheckPodResources checks the resource limits of a pod. Limits that are nil are valid. prefix is the path of the
// message with the fields overhead and resources, for error messages.
func (n Node) CheckPodResources(prefix string, overhead, resources *cri.LinuxContainerResources) error {
	if n.CheckResources == nil {
		return nil
	}
	if err := n.CheckResources(prefix+"overhead", overhead); err != nil {
		return err
	}
	return n.CheckResources(prefix+"resources", resources)
}
