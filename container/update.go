package container

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UpdateResources changes the limits of a created or running container; fields
// that are 0 or empty stay as they are.
func (m *Manager) UpdateResources(ctx context.Context, id string, r *cri.LinuxContainerResources) error {
	c, err := m.find(id)
	if err != nil {
		return fmt.Errorf("update container: %w", err)
	}
	unlock, err := m.ops.Lock(ctx, c.id)
	if err != nil {
		return fmt.Errorf("update container %q: %w", short(c.id), err)
	}
	defer unlock()
	s := c.snap.Load()
	if s.State != Created && s.State != Running {
		return errWrongState("update", s)
	}
	if err := m.update(ctx, c, s, r); err != nil {
		return fmt.Errorf("update container %q: %w", short(c.id), err)
	}
	return nil
}

func (m *Manager) update(ctx context.Context, c *container, s *Snapshot, r *cri.LinuxContainerResources) error {
	res, warnings, err := m.cfg.Builder.Resources(r)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		c.log().Warn(w)
	}
	if err := c.runtime.Update(ctx, c.id, res); err != nil {
		return err
	}
	now := merge(s.Resources, r)
	var encodeErr error
	err = c.change(func(f *facts) { encodeErr = f.setResources(now) })
	if err == nil {
		err = encodeErr
	}
	return err
}

// merge lays the fields that are set in r over those of old.
func merge(old, r *cri.LinuxContainerResources) *cri.LinuxContainerResources {
	now := &cri.LinuxContainerResources{}
	if old != nil {
		now = proto.CloneOf(old)
	}
	if len(r.GetHugepageLimits()) > 0 {
		now.HugepageLimits = nil // proto.Merge would append
	}
	proto.Merge(now, r)
	return now
}
