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
			t.Errorf("%d callers wait for \"k\" and %d for \"other\", want 2 and 0", k, other)
		}
		if a, b := <-results, <-results; a != 1 || b != 1 || runs != 1 {
			t.Fatalf("got %d and %d from %d runs, want the result of one run", a, b, runs)
		}
	})
}

func TestLastWaiterCancelsWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		workErr := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(time.Second); cancel() }()
		_, err := g.Do(ctx, "k", func(ctx context.Context) (int, error) {
			<-ctx.Done()
			workErr <- ctx.Err()
			time.Sleep(time.Second) // simulates a rollback
			return 0, ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("caller got %v, want Canceled", err)
		}
		if err := <-workErr; !errors.Is(err, context.Canceled) {
			t.Fatalf("work got %v, want Canceled", err)
		}
		// A new call waits for the rollback and then runs its own work.
		v, err := g.Do(t.Context(), "k", func(context.Context) (int, error) { return 7, nil })
		if v != 7 || err != nil {
			t.Fatalf("got %d, %v after a cancelled call", v, err)
		}
	})
}

func TestRetryWithinLinger(t *testing.T) {
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

func TestLingerExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := Group[int]{Linger: 5 * time.Second}
		start := time.Now()
		cancelled := make(chan time.Duration, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = g.Do(ctx, "k", func(ctx context.Context) (int, error) {
			<-ctx.Done()
			cancelled <- time.Since(start)
			return 0, ctx.Err()
		})
		if d := <-cancelled; d != 6*time.Second {
			t.Fatalf("work was cancelled after %s, want 6 s", d)
		}
	})
}
