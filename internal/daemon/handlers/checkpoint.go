package handlers

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/oci/runtime"
)

// CheckpointVersion returns the version of the runtime of a handler that can checkpoint containers. It waits for the
// first probe of the handler.
//
// Errors: ErrNotImplemented if the handler is not configured, or its runtime cannot checkpoint containers.
func (s *Set) CheckpointVersion(handler string) (string, error) {
	p := s.prober(handler)
	if p == nil {
		return "", fmt.Errorf("runtime handler %q is not configured: %w", handler, errdefs.ErrNotImplemented)
	}
	result := p.wait()
	if err := p.checkpointError(result); err != nil {
		return "", err
	}
	return result.info.Version, nil
}

// checkpointError returns the reason why the runtime of a handler cannot checkpoint containers, or nil.
func (p *prober) checkpointError(result *probeResult) error {
	switch {
	case p.runtime.Guest:
		return fmt.Errorf("runtime handler %q runs containers under a guest kernel, whose state criu cannot read: %w",
			p.runtime.Name, errdefs.ErrNotImplemented)
	case !runtime.CanCheckpoint(result.features):
		return fmt.Errorf("the OCI runtime of handler %q (%s) does not support checkpoints: %w",
			p.runtime.Name, result.info.Version, errdefs.ErrNotImplemented)
	}
	return nil
}
