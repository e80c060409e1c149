package server

import (
	"sync/atomic"
	"time"
)

// clock gives timestamps to the states of pods that events and PodSandboxStatus carry.
// The kubelet keeps the state with the latest timestamp (Evented PLEG), so timestamps
// increase also if the clock of the host is set back.
type clock struct{ last atomic.Int64 }

// now returns the time in nanoseconds since the Unix epoch, or a later time if an earlier
// call has returned that time already.
func (c *clock) now() int64 {
	for {
		last := c.last.Load()
		next := max(time.Now().UnixNano(), last+1)
		if c.last.CompareAndSwap(last, next) {
			return next
		}
	}
}
