package container

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// injectDevices adds the edits of CDI devices to an OCI config.
func injectDevices(s *Settings, config *specs.Spec, names []string) error {
	if err := s.CDI.Inject(config, names); err != nil {
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
