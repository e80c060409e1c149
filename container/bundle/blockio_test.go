package bundle

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
)

// TestUnsupportedWeightsAreDropped checks the limits on a kernel without an I/O scheduler that supports weights.
func TestUnsupportedWeightsAreDropped(t *testing.T) {
	weight := uint16(50)
	rates := []specs.LinuxThrottleDevice{{Rate: 7}}
	limits := &specs.LinuxBlockIO{Weight: &weight, ThrottleReadBpsDevice: rates}
	r := &Request{Host: Host{HasBlockIOWeight: func(string) bool { return false }}, Log: logrus.NewEntry(logrus.StandardLogger())}
	got := r.supportedBlockIO(limits)
	if got.Weight != nil || len(got.ThrottleReadBpsDevice) != 1 || limits.Weight == nil {
		t.Errorf("got %+v from %+v", got, limits)
	}
	if got := r.supportedBlockIO(nil); got != nil {
		t.Errorf("without a class: %+v", got)
	}
}
