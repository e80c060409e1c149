package pull

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
)

// watch ends a pull in which nothing moves. A time-out for the whole would have
// to know how large the image is.
type watch struct {
	moved  atomic.Int64 // bytes and steps
	window time.Duration
	cancel context.CancelCauseFunc
	done   chan struct{}
}

// newWatch returns a context that ends, with the reason as its cause, when
// nothing has moved for a whole window. stop must be called.
func newWatch(ctx context.Context, window time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{window: window, cancel: cancel, done: make(chan struct{})}
	go w.run(ctx)
	return ctx, w
}

func (w *watch) run(ctx context.Context) {
	defer close(w.done)
	// Looked at four times a window, so that what stands still is ended after
	// one and a quarter at most.
	const looks = 4
	if w.window <= 0 {
		return
	}
	tick := time.NewTicker(max(w.window/looks, time.Millisecond))
	defer tick.Stop()
	for last, still := w.moved.Load(), 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := w.moved.Load()
		if still++; now != last {
			last, still = now, 0
		}
		if still >= looks {
			w.cancel(fmt.Errorf("%w: no data for %s, with %d bytes before: %w",
				ErrRegistryUnavailable, w.window, now, errdefs.ErrUnavailable))
			return
		}
	}
}

// step notes that something was done; add, that bytes came.
func (w *watch) step()     { w.moved.Add(1) }
func (w *watch) add(n int) { w.moved.Add(int64(n)) }

// fail ends the pull with this cause, if it is the first.
func (w *watch) fail(err error) { w.cancel(err) }

func (w *watch) stop() {
	w.cancel(context.Canceled)
	<-w.done
}
