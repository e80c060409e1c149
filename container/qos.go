package container

import (
	"fmt"

	"github.com/criserver/criserver/oci/qos"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// classes are the shares of block I/O, cache and memory bandwidth that a
// container asks for by the name of a class of the operator's; nil for none.
type classes struct {
	blockIO *specs.LinuxBlockIO
	rdt     *specs.LinuxIntelRdt
}

// classesOf looks them up. A class that does not exist is the caller's mistake,
// and one that the node cannot give a condition that it does not meet: to run
// the container without would be to say nothing.
func (m *Manager) classesOf(c *cri.ContainerConfig, p *cri.PodSandboxConfig) (out classes, err error) {
	name, own, pod := c.GetMetadata().GetName(), c.GetAnnotations(), p.GetAnnotations()
	if class, annotation := qos.BlockIOClass.Of(name, own, pod); class != "" {
		if out.blockIO, err = m.cfg.BlockIO.Class(class); err != nil {
			return out, fmt.Errorf("annotation %q: %w", annotation, err)
		}
	}
	if class, annotation := qos.RDTClass.Of(name, own, pod); class != "" {
		if out.rdt, err = m.cfg.RDT.Class(class); err != nil {
			return out, fmt.Errorf("annotation %q: %w", annotation, err)
		}
	}
	return out, nil
}

// blockIO is what the runtime is told. Weights are dropped where no I/O scheduler
// of the node knows them, as the files that they go to are missing then.
func (m *Manager) blockIO(c *container, p *plan) *specs.LinuxBlockIO {
	b := p.classes.blockIO
	if b == nil || b.Weight == nil && b.WeightDevice == nil || m.cfg.Cgroups.WeighsBlockIO(p.pod.CgroupParent) {
		return b
	}
	c.log().Warn("weights of block I/O are not enforced: no I/O scheduler of this node has them")
	rates := *b
	rates.Weight, rates.WeightDevice = nil, nil
	return &rates
}
