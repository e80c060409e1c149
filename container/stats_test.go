package container

import (
	"slices"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestStats checks that the limits in the stats are the limits of the kernel.
func TestStats(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	c := shell("busy", "while :; do :; done")
	c.Linux.Resources = &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 200}
	id := b.run(m, c)
	if err := m.UpdateResources(t.Context(), id, &cri.LinuxContainerResources{MemoryLimitInBytes: 128 << 20}); err != nil {
		t.Fatal(err)
	}
	s, _ := m.Get(id)
	if st, err := b.tree.Stats(s.CgroupPath); err != nil || st.Memory.Limit != 128<<20 {
		t.Errorf("limit %d, %v", st.Memory.Limit, err)
	}
	stats, err := m.Stats(id[:8])
	if err != nil || stats.Usage == nil || stats.Usage.CPUUsage == 0 || stats.Usage.Memory.WorkingSet == 0 {
		t.Errorf("stats %+v, %v", stats, err)
	}
	all := slices.Collect(m.StatsOf(func(*Snapshot) bool { return true }))
	if len(all) != 1 || all[0].Container.ID != id {
		t.Errorf("all: %v", all)
	}
	if none := slices.Collect(m.StatsOf(func(*Snapshot) bool { return false })); len(none) != 0 {
		t.Errorf("none: %v", none)
	}
}
