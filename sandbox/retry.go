package sandbox

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

const (
	firstRetryDelay  = time.Second
	maxRetryDelay    = time.Minute
	retryConcurrency = 4 // pods
)

// retries schedules pods whose teardown is retried in the background until it succeeds.
type retries struct {
	changed chan struct{} // capacity 1

	mu   sync.Mutex // guards pods
	pods map[string]*retryState
}

type retryState struct {
	dueAt time.Time
	delay time.Duration // from a failure of the next attempt to the attempt after it
	busy  bool          // an attempt is in progress
}

func newRetries() retries {
	return retries{changed: make(chan struct{}, 1), pods: make(map[string]*retryState)}
}

// add schedules an attempt for a pod after a delay, unless the pod is scheduled already.
func (r *retries) add(id string, delay time.Duration) {
	r.mu.Lock()
	if r.pods[id] == nil {
		r.pods[id] = &retryState{dueAt: time.Now().Add(delay), delay: firstRetryDelay}
	}
	r.mu.Unlock()
	r.wake()
}

func (r *retries) wake() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// take returns the pods that are due, and the time until the next pod is due.
func (r *retries) take(now time.Time) (due []string, next time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next = time.Hour
	for id, s := range r.pods {
		switch wait := s.dueAt.Sub(now); {
		case s.busy:
		case wait <= 0:
			s.busy = true
			due = append(due, id)
		default:
			next = min(next, wait)
		}
	}
	return due, next
}

// finish records the result of an attempt. A pod whose attempt failed is scheduled again.
func (r *retries) finish(id string, err error) {
	r.mu.Lock()
	if err == nil {
		delete(r.pods, id)
	} else if s := r.pods[id]; s != nil {
		s.busy, s.dueAt = false, time.Now().Add(s.delay)
		s.delay = min(2*s.delay, maxRetryDelay)
	}
	r.mu.Unlock()
	r.wake()
}

// run calls attempt for the pods that are due, until ctx ends.
func (r *retries) run(ctx context.Context, attempt func(context.Context, string) error) {
	var g errgroup.Group
	defer func() { _ = g.Wait() }()
	g.SetLimit(retryConcurrency)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.changed:
		}
		due, next := r.take(time.Now())
		for _, id := range due {
			g.Go(func() error {
				err := attempt(ctx, id)
				r.finish(id, err)
				if err != nil && ctx.Err() == nil {
					logrus.WithContext(ctx).WithError(err).WithField("pod", id).Warn("cannot tear down the pod sandbox, will try again")
				}
				return nil
			})
		}
		timer.Reset(next)
	}
}

// retry continues the teardown of a pod that was stopped, or of hidden leftovers.
func (m *Manager) retry(ctx context.Context, id string) error {
	e := m.view.Load().entries[id]
	switch {
	case e == nil:
		return nil
	case e.hidden:
		return m.discard(ctx, id)
	case e.rec.StoppedAt.IsZero():
		return nil
	}
	return m.stop(ctx, id)
}

// discard tears down and removes hidden leftovers. If the teardown fails, the leftovers become
// visible, so that the kubelet can remove them.
func (m *Manager) discard(ctx context.Context, id string) error {
	_, err := m.releases.Do(ctx, id, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, m.release(ctx, id)
	})
	if err != nil {
		return err
	}
	unlock, err := m.ops.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	e := m.view.Load().entries[id]
	if e == nil || !e.hidden {
		return nil
	}
	next := e.copy()
	if err := m.removeRest(ctx, next); err != nil {
		m.publish(next)
		return err
	}
	m.forget(id)
	logrus.WithContext(ctx).WithField("pod", id).Info("removed the leftovers of a pod sandbox")
	return nil
}
