package sandbox

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

const (
	retryFirst = time.Second
	retryMax   = time.Minute
	retryWidth = 4 // pods taken down side by side in the background
)

// retries are the pods whose end is to be brought about in the background,
// again and again until it is done.
type retries struct {
	changed chan struct{} // capacity one

	mu  sync.Mutex // guards due
	due map[string]*due
}

type due struct {
	at    time.Time
	after time.Duration // until the next try, once this one has failed
	busy  bool
}

func newRetries() retries {
	return retries{changed: make(chan struct{}, 1), due: make(map[string]*due)}
}

// add has a pod tried after a while, unless it is waiting already.
func (r *retries) add(id string, after time.Duration) {
	r.mu.Lock()
	if r.due[id] == nil {
		r.due[id] = &due{at: time.Now().Add(after), after: retryFirst}
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

// take returns what is due now and how long it is until there is more.
func (r *retries) take(now time.Time) (ready []string, next time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next = time.Hour
	for id, d := range r.due {
		switch wait := d.at.Sub(now); {
		case d.busy:
		case wait <= 0:
			d.busy = true
			ready = append(ready, id)
		default:
			next = min(next, wait)
		}
	}
	return ready, next
}

// settle notes how a try went.
func (r *retries) settle(id string, err error) {
	r.mu.Lock()
	if err == nil {
		delete(r.due, id)
	} else if d := r.due[id]; d != nil {
		d.busy, d.at = false, time.Now().Add(d.after)
		d.after = min(2*d.after, retryMax)
	}
	r.mu.Unlock()
	r.wake()
}

// run tries what is due until ctx ends.
func (r *retries) run(ctx context.Context, try func(context.Context, string) error) {
	var g errgroup.Group
	defer func() { _ = g.Wait() }()
	g.SetLimit(retryWidth)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.changed:
		}
		ready, next := r.take(time.Now())
		for _, id := range ready {
			g.Go(func() error {
				err := try(ctx, id)
				r.settle(id, err)
				if err != nil && ctx.Err() == nil {
					logrus.WithContext(ctx).WithError(err).WithField("pod", id).Warn("pod sandbox could not be taken down, trying again")
				}
				return nil
			})
		}
		timer.Reset(next)
	}
}

// retry brings a pod to its end as far as that was asked for.
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

// discard takes down and removes remains that nobody was ever told of. When it
// fails they become visible, and the kubelet's to remove.
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
	logrus.WithContext(ctx).WithField("pod", id).Info("remains of a pod sandbox removed")
	return nil
}
