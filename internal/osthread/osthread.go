// Package osthread runs code that changes the attributes of its thread permanently, for
// example namespaces, the root directory or credentials.
package osthread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Run runs fn on a separate thread and returns the result of fn. The thread ends with fn, so
// that no other goroutine runs on a thread that fn has changed.
func Run(fn func() error) error {
	done := make(chan error, 1)
	go runLocked(fn, done)
	return <-done
}

// runLocked locks its goroutine to a thread and runs fn. It does not unlock the thread,
// because Go ends a locked thread together with its goroutine.
//
// The main thread is an exception: Go parks the main thread instead of ending it. The
// main thread would hold the namespaces that fn has entered until the daemon ends, and
// /proc/PID would show them as the namespaces of the process. Therefore a goroutine that gets the
// main thread keeps it occupied while another goroutine runs fn.
func runLocked(fn func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		done <- fn()
		return
	}
	result := make(chan error, 1)
	go runLocked(fn, result)
	done <- <-result
	runtime.UnlockOSThread()
}
