package oplock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestLocksExcludeOperationsOnOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Locks
		unlock, err := l.Lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		unlockOther, err := l.Lock(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		unlockOther()
		locked := false
		go func() {
			second, err := l.Lock(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			locked = true
			second()
		}()
		synctest.Wait()
		if locked {
			t.Error("two operations hold the same lock")
		}
		unlock()
		synctest.Wait()
		if !locked || len(l.locks) != 0 {
			t.Errorf("second operation got the lock: %t; %d locks are left", locked, len(l.locks))
		}
	})
}

func TestLockReturnsTheErrorOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Locks
		unlock, err := l.Lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.Lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want DeadlineExceeded", err)
		}
		unlock()
		if len(l.locks) != 0 {
			t.Errorf("%d locks are left", len(l.locks))
		}
	})
}
