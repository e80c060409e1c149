package daemon

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/checkpoint"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/criu"
	"github.com/criserver/criserver/oci/runtime"
)

// newCheckpoints returns the manager of checkpoints. The caller sets the other managers of p first.
func newCheckpoints(p *parts) (*checkpoint.Manager, error) {
	cfg := checkpoint.Config{
		Dir: filepath.Join(p.settings.Root, "checkpoints"), KeyFile: p.checkpointKey(), Engine: "criserver " + p.version, CgroupV2: p.host.cgroups.V2(),
		Containers: p.containers, Pods: p.pods, Images: p.images, Cgroups: cgroupUsage{p.host.cgroups}, Programs: p,
	}
	if p.metrics != nil {
		cfg.Observer = p.metrics
	}
	return checkpoint.New(cfg)
}

// checkpointKey returns the path of the key that authenticates checkpoints.
func (p *parts) checkpointKey() string { return filepath.Join(p.settings.Root, archive.KeyFile) }

// newCRIU returns a checker of the criu program in the current settings.
func newCRIU(p *parts) *criu.Checker {
	return &criu.Checker{Configured: func() string { return p.live.Load().settings.Checkpoint.CRIU }}
}

// runCRIUCheck checks criu once, so that Status can show the result. The start of the daemon does not wait for the
// check.
func (p *parts) runCRIUCheck(ctx context.Context) error {
	program, err := p.criu.Check(ctx)
	if ctx.Err() != nil {
		return nil
	}
	log := logrus.WithContext(ctx)
	if err != nil {
		log.WithError(err).Info("checkpoints are not available")
		return nil
	}
	log.WithField("path", program.Path).WithField("version", program.Version).Debug("checkpoints are available")
	return nil
}

// Programs implements checkpoint.Programs.
func (p *parts) Programs(ctx context.Context, handler string) (criu.Program, string, error) {
	prober := p.live.Load().handlers.prober(handler)
	if prober == nil {
		return criu.Program{}, "", fmt.Errorf("runtime handler %q is not configured: %w", handler, errdefs.ErrNotImplemented)
	}
	if err := prober.checkpointError(prober.wait()); err != nil {
		return criu.Program{}, "", err
	}
	program, err := p.criu.Check(ctx)
	return program, prober.wait().info.Version, err
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

// noCheckpoints returns the reason why containers of a handler cannot be checkpointed. Before the first check of the
// handler, and for a handler that supports checkpoints, noCheckpoints returns "".
func (p *parts) noCheckpoints(prober *prober) string {
	result := prober.result.Load()
	if result == nil {
		return ""
	}
	err := prober.checkpointError(result)
	if err == nil {
		_, err = p.criu.Last()
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

// cgroupUsage implements checkpoint.Cgroups.
type cgroupUsage struct{ *cgroup.Tree }

func (u cgroupUsage) MemoryUsage(path string) int64 {
	s, err := u.Stats(path)
	if err != nil {
		return 0
	}
	return int64(s.Memory.RSS) //nolint:gosec // less than the memory of the machine
}
