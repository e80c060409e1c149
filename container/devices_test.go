package container

import (
	"testing"

	"github.com/criserver/criserver/container/record"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// noWeights are the cgroups of a kernel without an I/O scheduler that supports weights.
type noWeights struct{ Cgroups }

func (noWeights) HasBlockIOWeight(string) bool { return false }

func TestUnsupportedWeightsAreDropped(t *testing.T) {
	weight := uint16(50)
	rates := []specs.LinuxThrottleDevice{{Rate: 7}}
	limits := &specs.LinuxBlockIO{Weight: &weight, ThrottleReadBpsDevice: rates}
	m := &Manager{cfg: Config{Cgroups: noWeights{}}}
	c := &container{id: "c", rec: &record.Record{}}
	got := m.supportedBlockIO(c, &plan{blockIO: limits})
	if got.Weight != nil || len(got.ThrottleReadBpsDevice) != 1 || limits.Weight == nil {
		t.Errorf("got %+v from %+v", got, limits)
	}
	if got := m.supportedBlockIO(c, &plan{}); got != nil {
		t.Errorf("without a class: %+v", got)
	}
}
