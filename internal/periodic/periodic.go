// Package periodic calls functions at regular intervals.
package periodic

import "time"

// Start calls f in a new goroutine once per interval, for the first time after one interval. stop ends the calls, and
// waits until a running call has returned. The caller must call stop once.
func Start(interval time.Duration, f func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				f()
			}
		}
	}()
	return func() { close(quit); <-done }
}
