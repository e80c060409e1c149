package container

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/msgdiff"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// earlier returns the id of the container that an earlier attempt of the same creation
// made, or "" if that container was removed.
func (m *Manager) earlier(ctx context.Context, c *container, config *cri.ContainerConfig) (string, error) {
	s := c.snap.Load()
	unclaimed := !c.claimed.Load() && !c.unread()
	switch {
	case s != nil && s.State == Created && (unclaimed || proto.Equal(c.config, config)):
		return c.id, nil
	case s != nil && s.State == Exited && s.StartedAt.IsZero() && (unclaimed || s.Reason == ReasonContainerCannotRun):
		// An earlier try failed and could not be undone then, or what it made has
		// died since.
		return "", m.Remove(ctx, c.id)
	case s != nil && s.State == Created:
		return "", fmt.Errorf("the name is taken by container %q, whose config differs in %v: %w",
			short(c.id), msgdiff.Fields(c.config, config), errdefs.ErrAlreadyExists)
	}
	return "", fmt.Errorf("the name is taken by container %q: %w", short(c.id), errdefs.ErrAlreadyExists)
}

// joined logs the fields in which a request differs from the request that made the
// container.
func (c *container) joined(config *cri.ContainerConfig) {
	if !proto.Equal(c.config, config) {
		c.log().WithField("differs", msgdiff.Fields(c.config, config)).Warn("a retry of CreateContainer has another config than the first try, which holds")
	}
}

// inStage tells a caller who gave up what it was waiting for.
func (m *Manager) inStage(n name, err error) error {
	if c := m.named(n); c != nil {
		if stage := c.stage.Load(); stage != nil {
			c.log().WithField("stage", *stage).Warn("the caller of CreateContainer gave up; it goes on for a retry")
			return fmt.Errorf("still in stage %q: %w", *stage, err)
		}
	}
	return err
}
