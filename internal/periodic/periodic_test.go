package periodic

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestStart checks the times of the calls, and that stop waits for a running call and ends the calls.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var calls []time.Duration
		stop := Start(10*time.Second, func() {
			calls = append(calls, time.Since(begin))
			time.Sleep(time.Second)
		})
		time.Sleep(20*time.Second + time.Millisecond)
		stop()
		if now := time.Since(begin); now != 21*time.Second {
			t.Errorf("stop has returned after %v, want 21s, the end of the second call", now)
		}
		time.Sleep(time.Minute)
		if len(calls) != 2 || calls[0] != 10*time.Second || calls[1] != 20*time.Second {
			t.Errorf("calls after %v, want 10s and 20s", calls)
		}
	})
}
