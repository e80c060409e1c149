// Package thread runs functions on operating system threads of their own.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs fn on a thread that nothing else will ever run on, and that ends
// after it, so fn may change what belongs to the thread for good. It is never
// the process's first thread: that one does not end, and what it has for root
// and working directory is what others see as the process's.
func Do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- fn() // never unlocked, so the thread ends with the goroutine
			return
		}
		// While this goroutine waits it keeps the first thread occupied.
		done <- Do(fn)
		runtime.UnlockOSThread()
	}()
	return <-done
}
