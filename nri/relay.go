package nri

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/status"
)

// relay has fn tell the plugins of one event, if there are any. note is called
// in the same moment in which no plugin can be synchronized: a plugin that
// connects is either told of the event or finds in its synchronization what
// note wrote down.
func (m *Manager) relay(ctx context.Context, note func(), fn func(context.Context) error) error {
	if m.nobody(note) {
		return nil
	}
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return fmt.Errorf("wait for NRI plugins: %w", context.Cause(ctx))
	}
	block := m.nri.BlockPluginSync()
	defer block.Unblock()
	if note != nil {
		note()
	}
	if m.plugins.Load() == 0 {
		return nil
	}
	m.failed.Store(nil)
	return m.words(fn(ctx))
}

// Any says whether there is a plugin at this moment.
func (m *Manager) Any() bool { return m.plugins.Load() > 0 }

// nobody is the way of a node without plugins: it costs two atomic operations.
func (m *Manager) nobody(note func()) bool {
	block := m.nri.BlockPluginSync()
	defer block.Unblock()
	if m.plugins.Load() > 0 {
		return false
	}
	if note != nil {
		note()
	}
	return true
}

// words makes an error of what a plugin said. Its gRPC code is dropped: a
// plugin's NotFound would be taken for an answer about the pod.
func (m *Manager) words(err error) error {
	if err == nil {
		return nil
	}
	from := "NRI"
	if who := m.failed.Load(); who != nil {
		from = "NRI " + *who
	}
	if s, ok := status.FromError(err); ok && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %s", from, s.Message())
	}
	return fmt.Errorf("%s: %w", from, err)
}

// quietly is for events whose answer changes nothing.
func (m *Manager) quietly(ctx context.Context, id string, err error) {
	if err != nil {
		logOf(ctx).WithField("id", id).WithError(err).Warn("a plugin failed in an event that is past")
	}
}
