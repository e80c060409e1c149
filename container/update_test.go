package container

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/oomscore"
	"github.com/criserver/criserver/oci/runtime"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// controls reads the limits of a container from the kernel.
func (b *testBed) controls(s *Snapshot) map[string]string {
	b.t.Helper()
	limits, err := b.tree.Limits(s.CgroupPath)
	if err != nil || len(limits) == 0 {
		b.t.Fatalf("limits %v, %v", limits, err)
	}
	out := make(map[string]string)
	for _, l := range limits {
		out[l.File] = l.Value
	}
	return out
}

// limitPodQuota limits the pod to half a CPU. The kernel then refuses a higher quota for a
// container, after the runtime has set the limits that it sets before the quota.
func (b *testBed) limitPodQuota() {
	b.t.Helper()
	file, value := b.tree.Dir("cpu", b.pods.pods["pod"].CgroupParent)+"/cpu.cfs_quota_us", "50000"
	if b.tree.V2() {
		b.t.Skip("on the unified hierarchy a quota may be above the parent's")
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		b.t.Fatal(err)
	}
}

var limited = &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 200, CpuQuota: 20000, CpuPeriod: 100000, CpusetCpus: "0"}

// excessive has a memory limit, which the runtime sets first, and a quota that fails.
var excessive = &cri.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, CpuShares: 500, CpuQuota: 200000, CpuPeriod: 100000, OomScoreAdj: 300}

func TestUpdateIsAllOrNothing(t *testing.T) {
	b := newTestBed(t)
	b.limitPodQuota()
	m, stop := b.manager()
	c := shell("c", "sleep 1000")
	c.Linux.Resources = limited
	id := b.run(m, c)
	before, _ := m.Get(id)
	limitsBefore := b.controls(before)
	err := m.UpdateResources(t.Context(), id, excessive)
	if err == nil || !strings.Contains(err.Error(), "cpu.cfs_quota_us") || strings.Contains(err.Error(), "undo") {
		t.Fatalf("update with more than the quota of the pod: got error %v, want one that names cpu.cfs_quota_us", err)
	}
	for range 2 {
		after, _ := m.Get(id)
		if limitsAfter := b.controls(after); !maps.Equal(limitsAfter, limitsBefore) {
			t.Errorf("limits: got %v, want %v as before the update", limitsAfter, limitsBefore)
		}
		if after.Resources.String() != before.Resources.String() {
			t.Errorf("resources: got %v, want %v as before the update", after.Resources, before.Resources)
		}
		stop()
		m, stop = b.manager()
	}
	if err := m.UpdateResources(t.Context(), id, &cri.LinuxContainerResources{CpuShares: 500}); err != nil {
		t.Fatal(err)
	}
	s, _ := m.Get(id)
	limitsBefore["cpu.shares"] = "500"
	if limitsAfter := b.controls(s); !maps.Equal(limitsAfter, limitsBefore) {
		t.Errorf("limits after another update: got %v, want %v", limitsAfter, limitsBefore)
	}
}

// wrapped replaces the runtime with a script. In the script, $RUNC is the real runtime, and
// $update is set for an update.
func (b *testBed) wrapped(script string) {
	b.t.Helper()
	path := filepath.Join(b.dir, "wrapper")
	text := fmt.Sprintf("#!/bin/sh\nRUNC=%s\nupdate=\nfor a; do [ \"$a\" = update ] && update=1; done\n%s\n", b.runtime.Path, script)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.runtime = &runtime.Runtime{Name: "runc", Path: path, Root: b.runtime.Root}
}

func TestUpdateIsUndoneIfTheStateFileCannotBeWritten(t *testing.T) {
	b := newTestBed(t)
	// The script replaces the state file with a directory when the limits are set.
	b.wrapped(fmt.Sprintf(`"$RUNC" "$@"; e=$?; [ "$update" ] && for d in %s/containers/*; do rm $d/state.json && mkdir -p $d/state.json/x; done; exit $e`, b.runDir))
	m, _ := b.manager()
	c := shell("c", "sleep 1000")
	c.Linux.Resources = limited
	id := b.run(m, c)
	before, _ := m.Get(id)
	limitsBefore := b.controls(before)
	r := &cri.LinuxContainerResources{MemoryLimitInBytes: 128 << 20, OomScoreAdj: 250}
	if err := m.UpdateResources(t.Context(), id, r); err == nil {
		t.Fatal("update with an unwritable state file succeeded, want an error")
	}
	after, _ := m.Get(id)
	if limitsAfter := b.controls(after); !maps.Equal(limitsAfter, limitsBefore) {
		t.Errorf("limits: got %v, want %v as before the update", limitsAfter, limitsBefore)
	}
	if adj, err := oomscore.Get(after.PID); err != nil || adj != 0 {
		t.Errorf("oom_score_adj: got %d (error %v), want 0", adj, err)
	}
	if after.Resources.GetMemoryLimitInBytes() != 64<<20 {
		t.Errorf("resources: got %v, want the memory limit %d", after.Resources, 64<<20)
	}
	if err := os.RemoveAll(filepath.Join(before.RunDir, record.StateFile)); err != nil {
		t.Fatal(err)
	}
}

func TestInterruptedUpdateIsUndoneByTheNextDaemon(t *testing.T) {
	b := newTestBed(t)
	m, stop := b.manager()
	conf := shell("c", "sleep 1000")
	conf.Linux.Resources = limited
	id := b.run(m, conf)
	s, _ := m.Get(id)
	limitsBefore := b.controls(s)
	plan, err := b.builder.Update(s.Resources, &cri.LinuxContainerResources{MemoryLimitInBytes: 256 << 20, OomScoreAdj: 77})
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.find(id)
	if err != nil {
		t.Fatal(err)
	}
	// The daemon has set all limits, and is killed before it answers.
	before, err := m.limitsTarget(c, s).Save(plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.commit(func(f *record.Status) error { f.Undo = before; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := m.limitsTarget(c, s).Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	if limitsAfter := b.controls(s); maps.Equal(limitsAfter, limitsBefore) {
		t.Fatal("the limits did not change")
	}
	stop()
	m, _ = b.manager()
	if limitsAfter := b.controls(s); !maps.Equal(limitsAfter, limitsBefore) {
		t.Errorf("limits: got %v, want %v as before the update", limitsAfter, limitsBefore)
	}
	if adj, err := oomscore.Get(s.PID); err != nil || adj != 0 {
		t.Errorf("oom_score_adj: got %d (error %v), want 0", adj, err)
	}
	if f, err := record.ReadStatus(s.RunDir); err != nil || f.Undo != nil {
		t.Errorf("saved limits in the state file: got %+v (error %v), want none", f.Undo, err)
	}
	if s, err := m.Get(id); err != nil || s.Resources.GetMemoryLimitInBytes() != 64<<20 {
		t.Errorf("resources: got %v (error %v), want the memory limit %d", s, err, 64<<20)
	}
}

func TestUpdateInEveryState(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	created, exited := b.create(m, shell("created", "sleep 1000")), b.run(m, shell("exited", "exit 0"))
	b.waitExit(m, exited)
	r := &cri.LinuxContainerResources{CpuShares: 321, OomScoreAdj: 123}
	if err := m.UpdateResources(t.Context(), created, r); err != nil {
		t.Fatal(err)
	}
	s, _ := m.Get(created)
	if got := b.controls(s)["cpu.shares"]; !b.tree.V2() && got != "321" {
		t.Errorf("cpu.shares: got %s, want 321", got)
	}
	if err := m.Start(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	if adj, err := oomscore.Get(s.PID); err != nil || adj != 123 {
		t.Errorf("oom_score_adj of the started process: got %d (error %v), want 123", adj, err)
	}
	if err := m.UpdateResources(t.Context(), exited, r); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("update of an exited container: got error %v, want FailedPrecondition", err)
	}
	if err := m.UpdateResources(t.Context(), "0123", r); !errdefs.IsNotFound(err) {
		t.Errorf("update of an unknown container: got error %v, want NotFound", err)
	}
}

func TestUpdateBelowMemoryUse(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	c := shell("memory", "x=$(head -c 20000000 /dev/zero | busybox tr '\\0' x); echo full; sleep 1000; true")
	c.Linux.Resources = &cri.LinuxContainerResources{MemoryLimitInBytes: 256 << 20}
	id := b.run(m, c)
	b.log("memory", "full")
	s, _ := m.Get(id)
	limitsBefore := b.controls(s)
	err := m.UpdateResources(t.Context(), id, &cri.LinuxContainerResources{MemoryLimitInBytes: 8 << 20, CpuShares: 2})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "linux.memory_limit_in_bytes 8388608 must not be below what the container uses, 2") {
		t.Fatalf("update below the memory in use: got error %v, want FailedPrecondition with both values", err)
	}
	if limitsAfter := b.controls(s); !maps.Equal(limitsAfter, limitsBefore) {
		t.Errorf("limits: got %v, want %v as before the update", limitsAfter, limitsBefore)
	}
	if s, _ = m.Get(id); s.State != Running || s.Resources.GetMemoryLimitInBytes() != 256<<20 {
		t.Errorf("container after the update: got state %s, resources %v, want running with memory limit %d", s.State, s.Resources, 256<<20)
	}
	for _, limit := range []int64{64 << 20, 512 << 20, 48 << 20} { // down, up, down
		if err := m.UpdateResources(t.Context(), id, &cri.LinuxContainerResources{MemoryLimitInBytes: limit}); err != nil {
			t.Fatal(err)
		}
		if st, err := b.tree.Stats(s.CgroupPath); err != nil || st.Memory.Limit != uint64(limit) {
			t.Errorf("memory limit in the cgroup: got %d (error %v), want %d", st.Memory.Limit, err, limit)
		}
	}
}

func TestUpdateOOMScoreAdjOfInheritingProcesses(t *testing.T) {
	b := newTestBed(t)
	m, stop := b.manager()
	c := shell("c", "sleep 1000 & echo $! >/tmp/same; sh -c 'echo 900 >/proc/self/oom_score_adj; echo ready; exec sleep 1000'; true")
	id := b.run(m, c)
	b.log("c", "ready")
	if err := m.UpdateResources(t.Context(), id, &cri.LinuxContainerResources{OomScoreAdj: 400}); err != nil {
		t.Fatal(err)
	}
	s, _ := m.Get(id)
	pids, err := b.tree.Pids(s.CgroupPath)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]int)
	for _, pid := range pids {
		adj, err := oomscore.Get(pid)
		if err != nil {
			t.Fatal(err)
		}
		seen[adj]++
	}
	if !maps.Equal(seen, map[int]int{400: 2, 900: 1}) {
		t.Errorf("processes by oom_score_adj: got %v, want 2 with 400 and 1 with 900", seen)
	}
	// New commands have the value, too, also after a restart of the daemon.
	for range 2 {
		out, err := m.ExecSync(t.Context(), id, []string{"sh", "-c", "while [ $(cat /proc/self/oom_score_adj) != 400 ]; do sleep 0.01; done; cat /proc/self/oom_score_adj"}, 10*time.Second)
		if err != nil || string(out.Stdout) != "400\n" {
			t.Errorf("oom_score_adj of exec: got %q (error %v), want 400", out.Stdout, err)
		}
		stop()
		m, stop = b.manager()
	}
	if s.Resources.GetOomScoreAdj() != 400 {
		t.Errorf("resources: got %v, want oom_score_adj 400", s.Resources)
	}
}

func TestHugepageLimits(t *testing.T) {
	b := newTestBed(t)
	if !b.tree.HasController("hugetlb") && !b.tree.HybridHugetlb() {
		t.Skip("this kernel has no hugetlb controller")
	}
	if _, err := os.Stat("/sys/kernel/mm/hugepages/hugepages-1048576kB"); err != nil {
		t.Skip("this machine has no hugepages of 1 GB")
	}
	m, _ := b.manager()
	c := shell("huge", "sleep 1000")
	c.Linux.Resources = &cri.LinuxContainerResources{HugepageLimits: []*cri.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}, {PageSize: "1GB", Limit: 1 << 30}}}
	id := b.run(m, c)
	s, _ := m.Get(id)
	checkLimit := func(size string, want int) {
		t.Helper()
		found := false
		for file, value := range b.controls(s) {
			if strings.HasPrefix(file, "hugetlb."+size) {
				found = true
				if value != strconv.Itoa(want) {
					t.Errorf("%s: got %s, want %d", file, value, want)
				}
			}
		}
		if !found {
			t.Errorf("limits: got none for pages of %s, want %d", size, want)
		}
	}
	checkLimit("2MB", 4<<20)
	checkLimit("1GB", 1<<30)
	if err := m.UpdateResources(t.Context(), id, &cri.LinuxContainerResources{HugepageLimits: []*cri.HugepageLimit{{PageSize: "2MB", Limit: 8 << 20}}}); err != nil {
		t.Fatal(err)
	}
	// In another update, the runtime writes the limits of the creation again.
	if err := m.UpdateResources(t.Context(), id, &cri.LinuxContainerResources{CpuShares: 99}); err != nil {
		t.Fatal(err)
	}
	checkLimit("2MB", 8<<20)
	checkLimit("1GB", 1<<30)
	if s, _ = m.Get(id); len(s.Resources.GetHugepageLimits()) != 2 || s.Resources.GetHugepageLimits()[0].GetLimit() != 8<<20 {
		t.Errorf("resources: got %v, want both hugepage limits", s.Resources)
	}
}
