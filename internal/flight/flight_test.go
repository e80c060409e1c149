package flight

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestSecondCallJoinsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		runs := 0
		work := func(context.Context) (int, error) {
			runs++
			time.Sleep(time.Second)
			return runs, nil
		}
		results := make(chan int, 2)
		for range 2 {
			go func() {
				v, err := g.Do(t.Context(), "k", work)
				if err != nil {
					t.Error(err)
				}
				results <- v
			}()
		}
		synctest.Wait()
		if k, other := g.Waiters("k"), g.Waiters("other"); k != 2 || other != 0 {
			t.Errorf("%d wait, and %d for nothing", k, other)
		}
		if a, b := <-results, <-results; a != 1 || b != 1 || runs != 1 {
			t.Fatalf("got %d and %d from %d runs, want one run shared", a, b, runs)
		}
	})
}

func TestWorkIsCancelledWithItsLastWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(time.Second); cancel() }()
		_, err := g.Do(ctx, "k", func(ctx context.Context) (int, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			time.Sleep(time.Second) // a rollback
			return 0, ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("caller got %v, want its own cancellation", err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatalf("work saw %v", err)
		}
		// A new call waits for the rollback and then runs afresh.
		v, err := g.Do(t.Context(), "k", func(context.Context) (int, error) { return 7, nil })
		if v != 7 || err != nil {
			t.Fatalf("got %d, %v after an abandoned call", v, err)
		}
	})
}

func TestLingerKeepsWorkForTheRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := Group[string]{Linger: 10 * time.Second}
		runs := 0
		work := func(ctx context.Context) (string, error) {
			runs++
			select {
			case <-time.After(8 * time.Second):
				return "done", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Do(short, "k", work); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("first caller got %v", err)
		}
		time.Sleep(2 * time.Second)
		v, err := g.Do(t.Context(), "k", work)
		if v != "done" || err != nil || runs != 1 {
			t.Fatalf("retry got %q, %v after %d runs", v, err, runs)
		}
	})
}

func TestLingerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := Group[int]{Linger: 5 * time.Second}
		begun := time.Now()
		ended := make(chan time.Duration, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = g.Do(ctx, "k", func(ctx context.Context) (int, error) {
			<-ctx.Done()
			ended <- time.Since(begun)
			return 0, ctx.Err()
		})
		if d := <-ended; d != 6*time.Second {
			t.Fatalf("work was cancelled after %s, want 1 s and the linger", d)
		}
	})
}
