package osthread

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRunAvoidsMainThread(t *testing.T) {
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if err := Run(func() error {
				if unix.Gettid() == unix.Getpid() {
					return errors.New("fn runs on the main thread")
				}
				runtime.Gosched()
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestRunReturnsResult(t *testing.T) {
	want := errors.New("failed")
	if got := Run(func() error { return want }); !errors.Is(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
