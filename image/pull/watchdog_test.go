package pull

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

func TestWatchdogCancelsStalledPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, w := newWatchdog(t.Context(), time.Minute)
		defer w.stop()
		for range 10 { // slow progress
			time.Sleep(50 * time.Second)
			w.addBytes(1)
		}
		if ctx.Err() != nil {
			t.Fatalf("pull was cancelled after %s of progress", time.Since(began))
		}
		stalled := time.Now()
		<-ctx.Done()
		if d := time.Since(stalled); d < time.Minute || d > 75*time.Second {
			t.Errorf("pull was cancelled after %s without progress", d)
		}
		if cause := context.Cause(ctx); !errdefs.IsUnavailable(cause) || !errors.Is(cause, ErrRegistryUnavailable) {
			t.Errorf("got cause %v", cause)
		}
	})
}

func TestWatchdogKeepsFirstCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, w := newWatchdog(t.Context(), time.Minute)
		first := errors.New("first")
		w.fail(first)
		w.fail(errors.New("second"))
		w.stop()
		if cause := context.Cause(ctx); !errors.Is(cause, first) {
			t.Errorf("got cause %v", cause)
		}
	})
}
