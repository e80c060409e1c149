package pull

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

func TestWatchEndsWhatStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, w := newWatch(t.Context(), time.Minute)
		defer w.stop()
		for range 10 { // slow, but moving
			time.Sleep(50 * time.Second)
			w.add(1)
		}
		if ctx.Err() != nil {
			t.Fatalf("ended after %s of moving", time.Since(began))
		}
		still := time.Now()
		<-ctx.Done()
		if d := time.Since(still); d < time.Minute || d > 75*time.Second {
			t.Errorf("ended after %s", d)
		}
		if cause := context.Cause(ctx); !errdefs.IsUnavailable(cause) || !errors.Is(cause, ErrRegistryUnavailable) {
			t.Errorf("cause %v", cause)
		}
	})
}

func TestWatchKeepsTheFirstReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, w := newWatch(t.Context(), time.Minute)
		first := errors.New("first")
		w.fail(first)
		w.fail(errors.New("second"))
		w.stop()
		if cause := context.Cause(ctx); !errors.Is(cause, first) {
			t.Errorf("cause %v", cause)
		}
	})
}
