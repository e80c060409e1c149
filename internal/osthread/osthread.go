// Package osthread runs code that changes its thread for good: its namespaces,
// its root, its credentials.
package osthread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Run runs fn on a thread that ends with it, so that no other code of this
// process ever runs on what fn made of it. It returns fn's result.
func Run(fn func() error) error {
	done := make(chan error, 1)
	go onOther(fn, done)
	return <-done
}

// onOther never unlocks its thread when fn ran on it: Go ends such a thread
// with its goroutine. The main thread is the exception. Go parks it instead,
// and it would hold the namespaces, and show them as the process's own in
// /proc, for as long as the daemon lives. So while the main thread is what this
// goroutine got, it is kept occupied and another one tries.
func onOther(fn func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		done <- fn()
		return
	}
	inner := make(chan error, 1)
	go onOther(fn, inner)
	done <- <-inner
	runtime.UnlockOSThread()
}
