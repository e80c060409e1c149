package server

import (
	"fmt"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
)

// rtMin and rtMax are the real-time signals as the C library counts them.
const rtMin, rtMax = 34, 64

// stopSignal is the signal that really asks the container to stop: the
// request's, the image's, or SIGTERM.
func stopSignal(c *container.Snapshot) cri.Signal {
	if s := c.Config.GetStopSignal(); s != cri.Signal_SIGNAL_RUNTIME_DEFAULT {
		return s
	}
	name := unix.SignalName(c.StopSignal)
	if n := int(c.StopSignal) - rtMin; n >= 0 && c.StopSignal <= rtMax {
		name = rtName(n)
	}
	// RUNTIME_DEFAULT is the zero value, for what the CRI has no name for.
	return cri.Signal(cri.Signal_value["SIGNAL_"+name])
}

// rtName names the n-th real-time signal as the CRI does, from the end that is
// nearer.
func rtName(n int) string {
	switch fromMax := rtMax - rtMin - n; {
	case n == 0:
		return "SIGRTMIN"
	case n <= 15:
		return fmt.Sprintf("SIGRTMINPLUS%d", n)
	case fromMax == 0:
		return "SIGRTMAX"
	default:
		return fmt.Sprintf("SIGRTMAXMINUS%d", fromMax)
	}
}
