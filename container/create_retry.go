package container

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/msgdiff"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// reuse returns the id of the container that an earlier attempt of the same creation has
// made, or "" if that container was removed.
func (m *Manager) reuse(ctx context.Context, c *container, config *cri.ContainerConfig) (string, error) {
	s := c.snap.Load()
	unclaimed := !c.idReturned.Load() && !c.isUnreadable()
	switch {
	case s != nil && s.State == Created && (unclaimed || proto.Equal(c.config, config)):
		return c.id, nil
	case s != nil && s.State == Exited && s.StartedAt.IsZero() && (unclaimed || s.Reason == ReasonContainerCannotRun):
		// The earlier attempt failed and its rollback failed, too, or the container has
		// exited since.
		return "", m.Remove(ctx, c.id)
	case s != nil && s.State == Created:
		return "", fmt.Errorf("the name is taken by container %q, whose config differs in %v: %w",
			short(c.id), msgdiff.Fields(c.config, config), errdefs.ErrAlreadyExists)
	}
	return "", fmt.Errorf("the name is taken by container %q: %w", short(c.id), errdefs.ErrAlreadyExists)
}

// logDifference logs the fields in which a request differs from the request that the
// container was made from.
func (c *container) logDifference(config *cri.ContainerConfig) {
	if !proto.Equal(c.config, config) {
		c.log().WithField("differs", msgdiff.Fields(c.config, config)).
			Warn("a retry of CreateContainer has another config than the first request: the first config is in force")
	}
}

// withStage adds to an error the stage of a creation whose caller has given up.
func (m *Manager) withStage(n name, err error) error {
	if c := m.byName(n); c != nil {
		if stage := c.stage.Load(); stage != nil {
			c.log().WithField("stage", *stage).Warn("the caller of CreateContainer gave up; the creation continues for a retry")
			return fmt.Errorf("still in stage %q: %w", *stage, err)
		}
	}
	return err
}
