package thread

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDoIsOnAnotherThread(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	want := errors.New("result")
	err := Do(func() error {
		if tid := unix.Gettid(); tid == unix.Getpid() {
			t.Error("on the first thread")
		}
		return want
	})
	if err != want {
		t.Errorf("got %v", err)
	}
}

func TestDoNeverTakesTheFirstThread(t *testing.T) {
	for range 2000 {
		_ = Do(func() error {
			if unix.Gettid() == unix.Getpid() {
				t.Error("on the first thread")
			}
			return nil
		})
	}
}
