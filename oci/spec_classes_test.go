package oci

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestClassesReachTheConfig(t *testing.T) {
	in := testInput()
	weight := uint16(50)
	in.BlockIO, in.RDT = &specs.LinuxBlockIO{Weight: &weight}, &specs.LinuxIntelRdt{ClosID: "gold"}
	l := mustBuild(t, testHost(), in).Spec.Linux
	if l.IntelRdt == nil || l.IntelRdt.ClosID != "gold" || l.Resources.BlockIO == nil || *l.Resources.BlockIO.Weight != 50 {
		t.Errorf("RDT %+v, resources %+v", l.IntelRdt, l.Resources)
	}
}
