package system

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type limits = cri.LinuxContainerResources

// unifiedHost reports whether the machine has only cgroup v2.
func unifiedHost() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// cgroupFile reads a control file of a container. v1 has the controller and the file, v2
// the file of the unified hierarchy.
func (n *node) cgroupFile(t *testing.T, id, v1, v2 string) string {
	t.Helper()
	return readCgroup(t, n.cgroupOf(t, id), v1, v2)
}

func (n *node) cgroupOf(t *testing.T, id string) string {
	t.Helper()
	r, err := n.RuntimeService.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	return infoField(t, r.GetInfo()["info"], "cgroupPath")
}

func cgroupPath(cgroup, v1, v2 string) string {
	if unifiedHost() {
		return filepath.Join("/sys/fs/cgroup", cgroup, v2)
	}
	controller, file := filepath.Split(v1)
	return filepath.Join("/sys/fs/cgroup", controller, cgroup, file)
}

func readCgroup(t *testing.T, cgroup, v1, v2 string) string {
	t.Helper()
	b, err := os.ReadFile(cgroupPath(cgroup, v1, v2))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (n *node) update(t *testing.T, id string, r *limits) error {
	t.Helper()
	_, err := n.RuntimeService.UpdateContainerResources(t.Context(), &cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: r})
	return err
}

func (n *node) mustUpdate(t *testing.T, id string, r *limits) {
	t.Helper()
	if err := n.update(t, id, r); err != nil {
		t.Fatalf("update to %v: %v", r, err)
	}
}

// inForce compares the limits with the values of the kernel and of the status.
func (n *node) inForce(t *testing.T, id string, want *limits) {
	t.Helper()
	if got := n.ContainerStatus(t, id).GetResources().GetLinux(); !proto.Equal(got, want) {
		t.Errorf("status: got %v, want %v", got, want)
	}
	check := func(field, want, v1, v2 string) {
		t.Helper()
		if got := n.cgroupFile(t, id, v1, v2); got != want {
			t.Errorf("%s: %s: got %q, want %q", field, cgroupPath("…", v1, v2), got, want)
		}
	}
	itoa := func(v int64) string { return strconv.FormatInt(v, 10) }
	if unifiedHost() {
		check("quota and period", itoa(want.GetCpuQuota())+" "+itoa(want.GetCpuPeriod()), "", "cpu.max")
		check("swap", itoa(want.GetMemorySwapLimitInBytes()-want.GetMemoryLimitInBytes()), "", "memory.swap.max")
	} else {
		check("cpu_shares", itoa(want.GetCpuShares()), "cpu/cpu.shares", "")
		check("cpu_quota", itoa(want.GetCpuQuota()), "cpu/cpu.cfs_quota_us", "")
		check("cpu_period", itoa(want.GetCpuPeriod()), "cpu/cpu.cfs_period_us", "")
		check("memory_swap_limit_in_bytes", itoa(want.GetMemorySwapLimitInBytes()), "memory/memory.memsw.limit_in_bytes", "")
	}
	check("memory_limit_in_bytes", itoa(want.GetMemoryLimitInBytes()), "memory/memory.limit_in_bytes", "memory.max")
	check("cpuset_cpus", want.GetCpusetCpus(), "cpuset/cpuset.cpus", "cpuset.cpus")
	check("cpuset_mems", want.GetCpusetMems(), "cpuset/cpuset.mems", "cpuset.mems")
	for _, h := range want.GetHugepageLimits() {
		size := "hugetlb." + h.GetPageSize()
		check("hugepage_limits", strconv.FormatUint(h.GetLimit(), 10), "unified/"+size+".max", size+".max")
		check("hugepage_limits", strconv.FormatUint(h.GetLimit(), 10), "unified/"+size+".rsvd.max", size+".rsvd.max")
	}
	if got := n.Exec(t, id, "cat", "/proc/1/oom_score_adj"); got != itoa(want.GetOomScoreAdj()) {
		t.Errorf("oom_score_adj: got %s, want %d", got, want.GetOomScoreAdj())
	}
}

// hugepages returns limits of 2 MB pages if this machine can limit them.
func hugepages(limit uint64) []*cri.HugepageLimit {
	for _, file := range []string{"/sys/fs/cgroup/unified/cgroup.controllers", "/sys/fs/cgroup/cgroup.controllers"} {
		b, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(b), "hugetlb") {
			return []*cri.HugepageLimit{{PageSize: "2MB", Limit: limit}}
		}
	}
	return nil
}

func everyLimit() *limits {
	return &limits{
		CpuShares: 300, CpuQuota: 40000, CpuPeriod: 80000, MemoryLimitInBytes: 96 << 20, MemorySwapLimitInBytes: 128 << 20,
		CpusetCpus: "0", CpusetMems: "0", OomScoreAdj: 300, HugepageLimits: hugepages(4 << 20),
	}
}

func TestEveryLimitIsSetAndUpdated(t *testing.T) {
	n := newNode(t, "limits", 90)
	p := n.RunPod(t, podConfig("limits"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	config.Linux.Resources = everyLimit()
	id := n.CreateContainer(t, p, config)
	n.StartContainer(t, id)
	want := everyLimit()
	n.inForce(t, id, want)
	for _, step := range []struct{ update, changed *limits }{
		{&limits{CpuShares: 500}, &limits{CpuShares: 500}},
		{&limits{CpuQuota: 60000}, &limits{CpuQuota: 60000}},
		{&limits{CpuPeriod: 100000}, &limits{CpuPeriod: 100000}},
		{&limits{MemoryLimitInBytes: 64 << 20}, &limits{MemoryLimitInBytes: 64 << 20}},
		{&limits{MemorySwapLimitInBytes: 80 << 20}, &limits{MemorySwapLimitInBytes: 80 << 20}},
		// Both limits increase and decrease by a lot, which tests both orders of writing.
		{&limits{MemoryLimitInBytes: 256 << 20, MemorySwapLimitInBytes: 256 << 20}, &limits{MemoryLimitInBytes: 256 << 20, MemorySwapLimitInBytes: 256 << 20}},
		{&limits{MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 48 << 20}, &limits{MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 48 << 20}},
		{&limits{CpusetCpus: "0"}, &limits{CpusetCpus: "0"}},
		{&limits{OomScoreAdj: 700}, &limits{OomScoreAdj: 700}},
		{&limits{OomScoreAdj: 350}, &limits{OomScoreAdj: 350}},
		{&limits{}, &limits{}},
	} {
		n.mustUpdate(t, id, step.update)
		proto.Merge(want, step.changed)
		n.inForce(t, id, want)
	}
	if h := hugepages(2 << 20); h != nil {
		n.mustUpdate(t, id, &limits{HugepageLimits: h})
		want.HugepageLimits = h
		n.inForce(t, id, want)
	}
	n.Kill()
	n.restart(t)
	n.inForce(t, id, want)
	n.mustUpdate(t, id, &limits{CpuShares: 42})
	want.CpuShares = 42
	n.inForce(t, id, want)
}

func TestUpdateOfLimitsInEachState(t *testing.T) {
	n := newNode(t, "states", 91)
	p := n.RunPod(t, podConfig("states"))
	created := n.CreateContainer(t, p, containerConfig(p, "created", busybox, "sleep", "1000"))
	want := everyLimit()
	n.mustUpdate(t, created, want)
	n.StartContainer(t, created)
	n.inForce(t, created, want)
	exited := n.run(t, p, "exited", "true")
	n.WaitExited(t, exited)
	if err := n.update(t, exited, want); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("update of an exited container: got error %v, want FailedPrecondition", err)
	}
	if err := n.update(t, "no-such-container", want); status.Code(err) != codes.NotFound {
		t.Errorf("update of an unknown container: got error %v, want NotFound", err)
	}
	if _, err := n.RuntimeService.UpdateContainerResources(t.Context(), &cri.UpdateContainerResourcesRequest{ContainerId: created}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("update without limits: got error %v, want InvalidArgument", err)
	}
	if got := n.ContainerStatus(t, exited).GetResources().GetLinux().GetCpuShares(); got != 102 {
		t.Errorf("cpu_shares of the exited container: got %d, want 102", got)
	}
}

// TestFailedUpdateChangesNothing limits the cgroup of the pod to half a CPU,
// so that the kernel refuses the quota, which the runtime writes after the memory limit.
func TestFailedUpdateChangesNothing(t *testing.T) {
	if unifiedHost() {
		t.Skip("on the unified hierarchy a quota may be above the parent's")
	}
	n := newNode(t, "halfway", 92)
	p := n.RunPod(t, podConfig("halfway"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	config.Linux.Resources = everyLimit()
	config.Linux.Resources.CpuQuota = 10000
	id := n.CreateContainer(t, p, config)
	n.StartContainer(t, id)
	parent := filepath.Dir(n.cgroupOf(t, id))
	if err := os.WriteFile(cgroupPath(parent, "cpu/cpu.cfs_quota_us", ""), []byte("50000"), 0); err != nil {
		t.Fatal(err)
	}
	err := n.update(t, id, &limits{
		CpuShares: 999, CpuQuota: 200000, CpuPeriod: 100000, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 900, HugepageLimits: hugepages(8 << 20),
	})
	if err == nil || !strings.Contains(err.Error(), "cpu.cfs_quota_us") {
		t.Fatalf("update: got error %v, want one that names cpu.cfs_quota_us", err)
	}
	n.inForce(t, id, config.Linux.Resources)
	n.Kill()
	n.restart(t)
	n.inForce(t, id, config.Linux.Resources)
	n.mustUpdate(t, id, &limits{CpuQuota: 20000})
}

func TestMemoryLimitBelowUsage(t *testing.T) {
	n := newNode(t, "belowuse", 93)
	p := n.RunPod(t, podConfig("belowuse"))
	id := n.run(t, p, "fat", "sh", "-c", "dd if=/dev/zero of=/dev/shm/fat bs=1M count=30 2>/dev/null && echo full; sleep 1000")
	waitFor(t, "the use of memory", func() bool { return logLinesNow(p, "fat") != "" })
	before := n.cgroupFile(t, id, "memory/memory.limit_in_bytes", "memory.max")
	err := n.update(t, id, &limits{MemoryLimitInBytes: 16 << 20, CpuShares: 77})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "linux.memory_limit_in_bytes 16777216 must not be below what the container uses") {
		t.Errorf("update below the memory in use: got error %v, want FailedPrecondition with the field", err)
	}
	if after := n.cgroupFile(t, id, "memory/memory.limit_in_bytes", "memory.max"); after != before {
		t.Errorf("memory limit in the cgroup: got %s, want %s as before the update", after, before)
	}
	if s := n.ContainerStatus(t, id); s.GetState() != cri.ContainerState_CONTAINER_RUNNING || s.GetResources().GetLinux().GetCpuShares() != 102 {
		t.Errorf("status after the failed update: got %v, want running with 102 CPU shares", s)
	}
}

// logLinesNow returns the current content of the log.
func logLinesNow(p *pod, name string) string {
	b, _ := os.ReadFile(filepath.Join(p.Config.GetLogDirectory(), name+".log"))
	return string(b)
}

func TestInvalidLimitsAreNamed(t *testing.T) {
	n := newNode(t, "badlimits", 94)
	p := n.RunPod(t, podConfig("badlimits"))
	id := n.run(t, p, "c", "sleep", "1000")
	before := n.cgroupFile(t, id, "memory/memory.limit_in_bytes", "memory.max")
	tests := map[string]struct {
		r     *limits
		field string
	}{
		"shares":              {&limits{CpuShares: 1}, "cpu_shares"},
		"shares huge":         {&limits{CpuShares: 1 << 40}, "cpu_shares"},
		"period":              {&limits{CpuPeriod: 12}, "cpu_period 12 must be"},
		"quota":               {&limits{CpuQuota: 10}, "cpu_quota"},
		"quota negative":      {&limits{CpuQuota: -5}, "cpu_quota"},
		"quota huge":          {&limits{CpuQuota: 1 << 62}, "cpu_quota"},
		"memory":              {&limits{MemoryLimitInBytes: 17}, "memory_limit_in_bytes"},
		"memory negative":     {&limits{MemoryLimitInBytes: -17}, "memory_limit_in_bytes"},
		"swap":                {&limits{MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 32 << 20}, "memory_swap_limit_in_bytes"},
		"cpuset":              {&limits{CpusetCpus: "0-"}, "cpuset_cpus"},
		"cpuset offline":      {&limits{CpusetCpus: "0,4000"}, "cpuset_cpus \"0,4000\" must be within the host's online CPUs"},
		"mems offline":        {&limits{CpusetMems: "900"}, "cpuset_mems"},
		"page size":           {&limits{HugepageLimits: []*cri.HugepageLimit{{PageSize: "3MB"}}}, "hugepage_limits[0].page_size"},
		"oom_score_adj":       {&limits{OomScoreAdj: 5000}, "oom_score_adj"},
		"unified cgroup.":     {&limits{Unified: map[string]string{"cgroup.procs": "1"}}, "unified"},
		"valid, then invalid": {&limits{MemoryLimitInBytes: 33 << 20, CpuPeriod: 1}, "cpu_period"},
	}
	if !unifiedHost() {
		tests["unified on v1"] = struct {
			r     *limits
			field string
		}{&limits{Unified: map[string]string{"memory.high": "1"}}, "unified: this host has cgroup v1"}
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if err := n.update(t, id, tc.r); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "linux."+tc.field) {
				t.Errorf("update: got error %v, want InvalidArgument with linux.%s", err, tc.field)
			}
			config := containerConfig(p, "bad", busybox, "true")
			config.Linux.Resources = tc.r
			_, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "config.linux.resources."+tc.field) {
				t.Errorf("create: got error %v, want InvalidArgument with config.linux.resources.%s", err, tc.field)
			}
		})
	}
	config := containerConfig(p, "bad", busybox, "true")
	config.Linux.Resources = &limits{MemorySwapLimitInBytes: 64 << 20}
	_, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "config.linux.resources.memory_swap_limit_in_bytes 67108864 is of memory and swap together: it needs memory_limit_in_bytes") {
		t.Errorf("swap without memory: got error %v, want InvalidArgument with the field", err)
	}
	if after := n.cgroupFile(t, id, "memory/memory.limit_in_bytes", "memory.max"); after != before {
		t.Errorf("memory limit in the cgroup: got %s, want %s as before the update", after, before)
	}
}

// TestPidsLimitOfTheConfiguration checks that updates do not change the limit of
// processes, which the CRI does not have.
func TestPidsLimitOfTheConfiguration(t *testing.T) {
	n := makeNode("pids")
	n.Network = n.Bridge("cspids", "10.120.0.0/16")
	n.writeFile(t, "config.toml.d/pids.toml", "[container]\npids_limit = 77\n")
	n.start(t)
	p := n.RunPod(t, podConfig("pids"))
	id := n.run(t, p, "c", "sleep", "1000")
	n.mustUpdate(t, id, &limits{CpuShares: 300, MemoryLimitInBytes: 64 << 20})
	if got := n.cgroupFile(t, id, "pids/pids.max", "pids.max"); got != "77" {
		t.Errorf("pids.max: got %s, want 77", got)
	}
}

// TestConcurrentUpdates checks that concurrent updates are serialized, and that the kernel
// and the status have the same values afterwards.
func TestConcurrentUpdates(t *testing.T) {
	n := newNode(t, "sidebyside", 121)
	p := n.RunPod(t, podConfig("sidebyside"))
	id := n.run(t, p, "c", "sleep", "1000")
	parallel(24, 8, func(i int) {
		r := &limits{CpuShares: int64(100 + i)}
		if i%2 == 0 {
			r = &limits{MemoryLimitInBytes: int64(64+i) << 20}
		}
		if err := n.update(t, id, r); err != nil {
			t.Errorf("update the limits of container %s: %v", id, err)
		}
	})
	got := n.ContainerStatus(t, id).GetResources().GetLinux()
	if kernel := n.cgroupFile(t, id, "memory/memory.limit_in_bytes", "memory.max"); kernel != strconv.FormatInt(got.GetMemoryLimitInBytes(), 10) {
		t.Errorf("memory limit: got %s in the cgroup and %d in the status, want the same", kernel, got.GetMemoryLimitInBytes())
	}
	if kernel := n.cgroupFile(t, id, "cpu/cpu.shares", "cpu.weight"); !unifiedHost() && kernel != strconv.FormatInt(got.GetCpuShares(), 10) {
		t.Errorf("CPU shares: got %s in the cgroup and %d in the status, want the same", kernel, got.GetCpuShares())
	}
	if got.GetCpuShares() == 102 || got.GetMemoryLimitInBytes() == 256<<20 {
		t.Errorf("limits in the status: got %v, want other limits than those of the creation", got)
	}
}
