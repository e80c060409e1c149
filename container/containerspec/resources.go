package containerspec

import (
	"fmt"

	"github.com/criserver/criserver/oci/qos"
)

func (p *parser) resources() error {
	p.spec.Resources = p.Config.GetLinux().GetResources()
	if p.Node == nil {
		return nil
	}
	return p.Node.Rules.CheckNew(p.spec.Resources)
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
