package daemon

import (
	"context"
	"path/filepath"

	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/checkpoint"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/criu"
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
	version, err := p.live.Load().handlers.CheckpointVersion(handler)
	if err != nil {
		return criu.Program{}, "", err
	}
	program, err := p.criu.Check(ctx)
	return program, version, err
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
