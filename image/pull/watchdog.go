package pull

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
)

// watchdog cancels a pull that makes no progress. A timeout for a complete pull would depend on
// the size of the image.
type watchdog struct {
	progress atomic.Int64 // bytes and steps
	window   time.Duration
	cancel   context.CancelCauseFunc
	done     chan struct{}
}

// newWatchdog returns a context that is cancelled, with the reason as its cause, if there is no
// progress within a window. The caller must call stop.
func newWatchdog(ctx context.Context, window time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{window: window, cancel: cancel, done: make(chan struct{})}
	go w.run(ctx)
	return ctx, w
}

func (w *watchdog) run(ctx context.Context) {
	defer close(w.done)
	// With four checks per window, a stalled pull ends after at most five quarters of a window.
	const checks = 4
	if w.window <= 0 {
		return
	}
	tick := time.NewTicker(max(w.window/checks, time.Millisecond))
	defer tick.Stop()
	for last, idle := w.progress.Load(), 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		current := w.progress.Load()
		if idle++; current != last {
			last, idle = current, 0
		}
		if idle >= checks {
			w.cancel(fmt.Errorf("%w: no data for %s, after %d bytes: %w",
				ErrRegistryUnavailable, w.window, current, errdefs.ErrUnavailable))
			return
		}
	}
}

// addStep records a step of the pull that is not measured in bytes.
func (w *watchdog) addStep() { w.progress.Add(1) }

// addBytes records received or unpacked bytes.
func (w *watchdog) addBytes(n int) { w.progress.Add(int64(n)) }

// fail cancels the pull with err as the cause, unless the pull has been cancelled before.
func (w *watchdog) fail(err error) { w.cancel(err) }

// stop releases the context and waits for the goroutine of the watchdog.
func (w *watchdog) stop() {
	w.cancel(context.Canceled)
	<-w.done
}
