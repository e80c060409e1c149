package system

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// needSystemd skips the test unless the host runs systemd with cgroup v2.
func needSystemd(t *testing.T) {
	t.Helper()
	if harness.CgroupDriver() != harness.Systemd {
		t.Skip("this host does not run systemd with cgroup v2")
	}
}

// bothRuntimes runs a test with each OCI runtime of the host. crun, unlike runc, puts
// processes into a cgroup below the scope.
func bothRuntimes(t *testing.T, n *node, test func(t *testing.T, p *pod)) {
	for _, handler := range []string{"runc", "crun"} {
		t.Run(handler, func(t *testing.T) {
			if handler == "crun" {
				if _, err := exec.LookPath(handler); err != nil {
					t.Skip("this host has no crun")
				}
				// crun keeps compiled seccomp profiles, which are no leaks.
				p := n.runPodOn(t, handler, podConfig("cache"))
				n.WaitExited(t, n.run(t, p, "c", "true"))
				n.RemovePod(t, p.ID)
				n.takeBaseline(t)
			}
			p := n.runPodOn(t, handler, podConfig("pod-"+handler))
			defer n.RemovePod(t, p.ID)
			test(t, p)
		})
	}
}

func (c *clients) runPodOn(t *testing.T, handler string, config *cri.PodSandboxConfig) *pod {
	t.Helper()
	r, err := c.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		t.Fatalf("run pod %s with %s: %v", config.GetMetadata().GetName(), handler, err)
	}
	return &pod{ID: r.GetPodSandboxId(), Config: config}
}

// runWith runs a container with a shell script and limits.
func (c *clients) runWith(t *testing.T, p *pod, name string, r *limits, script string) string {
	t.Helper()
	config := containerConfig(p, name, busybox, "sh", "-c", script)
	config.Linux.Resources = r
	id := c.CreateContainer(t, p, config)
	c.StartContainer(t, id)
	return id
}

// processCgroup returns the directory of the cgroup of a container's first process.
func (n *node) processCgroup(t *testing.T, id string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(n.ContainerPID(t, id)) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(strings.TrimSpace(string(b)), "0::"))
}

// haveFiles checks the control files of a cgroup. Each may have one of several
// contents, because runtimes convert CPU shares with one of two formulas.
func haveFiles(t *testing.T, dir string, want map[string][]string) {
	t.Helper()
	for file, values := range want {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if got := strings.TrimSpace(string(b)); err != nil || !slices.Contains(values, got) {
			t.Errorf("%s: got %q (error %v), want one of %q", file, got, err, values)
		}
	}
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func systemdVersion(t *testing.T) int {
	t.Helper()
	fields := strings.Fields(systemctl(t, "--version"))
	if len(fields) < 2 {
		t.Fatalf("systemctl --version: got the fields %q, want a name and a version", fields)
	}
	v, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestLimitsAfterSystemdReload checks that limits are in the cgroup of the
// processes, and that a reload of systemd does not change them.
func TestLimitsAfterSystemdReload(t *testing.T) {
	needSystemd(t)
	n := newNode(t, "reload", 131)
	bothRuntimes(t, n, func(t *testing.T, p *pod) {
		id := n.runWith(t, p, "c", &limits{
			CpuShares: 512, CpuQuota: 50000, CpuPeriod: 100000, MemoryLimitInBytes: 96 << 20, CpusetCpus: "0", HugepageLimits: hugepages(4 << 20),
			Unified: map[string]string{
				"memory.high": "67108864", "memory.min": "8388608", "memory.low": "16777216", "memory.swap.max": "33554432", "memory.oom.group": "1", "pids.max": "90",
			},
		}, "sleep 1000")
		want := map[string][]string{
			"cpu.weight": {"20", "59"}, "cpu.max": {"50000 100000"}, "memory.max": {"100663296"}, "memory.high": {"67108864"}, "memory.min": {"8388608"},
			"memory.low": {"16777216"}, "memory.swap.max": {"33554432"}, "memory.oom.group": {"1"}, "cpuset.cpus": {"0"}, "pids.max": {"90"},
			"hugetlb.2MB.max": {"4194304"}, "hugetlb.2MB.rsvd.max": {"4194304"},
		}
		dir := n.processCgroup(t, id)
		haveFiles(t, dir, want)
		if systemdVersion(t) < 253 && strings.HasSuffix(dir, ".scope") {
			// This systemd has no property for the file and sets the file to 0.
			delete(want, "memory.oom.group")
		}
		systemctl(t, "daemon-reload")
		haveFiles(t, dir, want)

		n.mustUpdate(t, id, &limits{
			CpuShares: 1024, CpuQuota: 80000, MemoryLimitInBytes: 128 << 20, HugepageLimits: hugepages(6 << 20),
			Unified: map[string]string{"memory.high": "max", "pids.max": "110", "memory.swap.max": "0"},
		})
		for file, value := range map[string]string{
			"cpu.max": "80000 100000", "memory.max": "134217728", "memory.high": "max", "pids.max": "110", "memory.swap.max": "0",
			"hugetlb.2MB.max": "6291456", "hugetlb.2MB.rsvd.max": "6291456",
		} {
			want[file] = []string{value}
		}
		want["cpu.weight"] = []string{"39", "100"}
		haveFiles(t, dir, want)
		systemctl(t, "daemon-reload")
		haveFiles(t, dir, want)
		n.Kill()
		n.restart(t)
		haveFiles(t, dir, want)

		// The rollback of a failed update survives a reload, too.
		if err := n.update(t, id, &limits{CpuShares: 2048, Unified: map[string]string{"memory.high": "1048576000", "memory.no_such": "1"}}); err == nil {
			t.Error("update of a missing file succeeded, want an error")
		}
		haveFiles(t, dir, want)
		systemctl(t, "daemon-reload")
		haveFiles(t, dir, want)
	})
}

// TestStatsOnCgroupV2 checks that stats come from the cgroup of the processes.
func TestStatsOnCgroupV2(t *testing.T) {
	needSystemd(t)
	n := newNode(t, "v2stats", 132)
	bothRuntimes(t, n, func(t *testing.T, p *pod) {
		id := n.runWith(t, p, "c", &limits{MemoryLimitInBytes: 96 << 20, Unified: map[string]string{"memory.swap.max": "8388608"}},
			"x=$(head -c 8000000 /dev/zero | tr '\\0' x); while :; do usleep 10000; done")
		waitFor(t, "use of memory", func() bool {
			return n.containerStats(t, id).GetMemory().GetRssBytes().GetValue() > 8_000_000
		})
		s := n.containerStats(t, id)
		if got := s.GetMemory().GetAvailableBytes().GetValue(); got == 0 || got > 96<<20 {
			t.Errorf("available memory: got %d, want 1 to the limit of %d", got, 96<<20)
		}
		if got := s.GetSwap().GetSwapAvailableBytes().GetValue(); got == 0 || got > 8<<20 {
			t.Errorf("available swap: got %d, want 1 to the limit of %d", got, 8<<20)
		}
		if _, err := os.Stat("/proc/pressure"); err != nil {
			t.Skip("this kernel was started without PSI")
		}
		if s.GetCpu().GetPsi() == nil || s.GetMemory().GetPsi() == nil || s.GetIo().GetPsi() == nil {
			t.Errorf("stats: got %v, want pressure of CPU, memory and I/O", s)
		}
	})
}

// TestOOMKilledOnCgroupV2 checks that a container is OOMKilled exactly if the OOM
// killer ended it, although systemd removes its scope at once.
func TestOOMKilledOnCgroupV2(t *testing.T) {
	needSystemd(t)
	n := newNode(t, "v2oom", 133)
	const eat = "(echo 500 >/proc/self/oom_score_adj; head -c 60m /dev/zero | tail) >/dev/null 2>&1"
	const group = "memory.oom.group"
	tests := []struct {
		name, script, group string
		stop                time.Duration // -1 for no stop
		code                int32
		reason              string
		adj                 int64 // oom_score_adj; with -1000 the kernel never kills the first process in place of its child
	}{
		{"first", "exec tail /dev/zero", "0", -1, 137, "OOMKilled", 0},
		{"group", eat + "; while :; do sleep 0.2; done", "1", -1, 137, "OOMKilled", 0},
		{"childs-status", "tail /dev/zero; exit $?", "0", -1, 137, "OOMKilled", 0},
		{"own-status", eat + "; exit 3", "0", -1, 3, "Error", -1000},
		{"stop-signal", "trap 'exit 143' TERM; " + eat + "; echo survived; while :; do sleep 0.2; done", "0", 20 * time.Second, 143, "Error", -1000},
		{"killed", "echo survived; sleep 1000", "0", 0, 137, "Error", 0},
	}
	bothRuntimes(t, n, func(t *testing.T, p *pod) {
		for _, tc := range tests {
			t.Run(tc.name, func(t *testing.T) {
				id := n.runWith(t, p, tc.name, &limits{
					MemoryLimitInBytes: 24 << 20, Unified: map[string]string{"memory.swap.max": "0", group: tc.group},
					OomScoreAdj: tc.adj,
				}, tc.script)
				if tc.stop >= 0 {
					waitFor(t, "the container's message", func() bool { return strings.Contains(logLinesNow(p, tc.name), "survived") })
					if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id, Timeout: int64(tc.stop.Seconds())}); err != nil {
						t.Fatal(err)
					}
				}
				if s := n.WaitExited(t, id); s.GetExitCode() != tc.code || s.GetReason() != tc.reason {
					t.Errorf("exited container %s: got exit code %d and reason %s, want %d and %s", tc.name, s.GetExitCode(), s.GetReason(), tc.code, tc.reason)
				}
			})
		}
	})
}

// TestOOMScoreAdjIsNotInherited checks that a container does not inherit the
// oom_score_adj of the daemon.
func TestOOMScoreAdjIsNotInherited(t *testing.T) {
	needSystemd(t)
	n := newNode(t, "v2adj", 137)
	bothRuntimes(t, n, func(t *testing.T, p *pod) {
		id := n.runWith(t, p, "c", nil, "cat /proc/self/oom_score_adj; sleep 1000")
		waitFor(t, "the container's message", func() bool { return logLinesNow(p, "c") != "" })
		if got := logLines(t, p, "c"); len(got) != 1 || got[0] != "0" {
			t.Errorf("oom_score_adj: got %q, want 0", got)
		}
		if got := n.Exec(t, id, "cat", "/proc/1/oom_score_adj"); got != "0" {
			t.Errorf("oom_score_adj of the first process: got %q, want 0", got)
		}
	})
}

// TestThreadedCgroups runs a container that creates threaded cgroups and moves into
// one. All code that walks cgroups must still work.
func TestThreadedCgroups(t *testing.T) {
	needSystemd(t)
	n := newNode(t, "threaded", 134)
	bothRuntimes(t, n, func(t *testing.T, p *pod) {
		config := podConfig("threaded-" + p.Config.GetMetadata().GetName())
		config.Linux.SecurityContext.Privileged = true
		q := n.runPodOn(t, strings.TrimPrefix(p.Config.GetMetadata().GetName(), "pod-"), config)
		c := containerConfig(q, "c", busybox, "sh", "-c", `g=/sys/fs/cgroup$(sed s/0:://p -n /proc/self/cgroup) && mkdir $g/t $g/t/u $g/invalid &&
			echo threaded >$g/t/cgroup.type && echo 1 >$g/t/cgroup.threads && ! cat $g/t/cgroup.procs && echo in; sleep 1000`)
		c.Linux.SecurityContext.Privileged, c.Linux.SecurityContext.Seccomp = true, nil
		// A cgroup with threaded children can only have threaded controllers. The pod
		// shares its PID namespace, so that Stop kills through the cgroup.
		c.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{Pid: cri.NamespaceMode_NODE}
		c.Command[2] = strings.Replace(c.Command[2], "echo 1 >", "echo $$ >", 1)
		id := n.CreateContainer(t, q, c)
		n.StartContainer(t, id)
		waitFor(t, "the threaded cgroup", func() bool { return strings.Contains(logLinesNow(q, "c"), " in\n") })
		if got := n.containerStats(t, id).GetMemory().GetUsageBytes().GetValue(); got == 0 {
			t.Error("memory usage of the container: got 0, want more")
		}
		n.mustUpdate(t, id, &limits{CpuShares: 300, OomScoreAdj: 400})
		if b, err := os.ReadFile("/proc/" + strconv.Itoa(n.ContainerPID(t, id)) + "/oom_score_adj"); err != nil || strings.TrimSpace(string(b)) != "400" {
			t.Errorf("oom_score_adj: got %q (error %v), want 400", b, err)
		}
		pid := n.ContainerPID(t, id)
		if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id, Timeout: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err == nil {
			t.Errorf("process %d after the stop exists, want none", pid)
		}
		n.RemovePod(t, q.ID)
	})
}

// TestUnitsOfPod checks that the units of a pod are removed with the pod, and that the
// scopes have the properties for a shutdown.
func TestUnitsOfPod(t *testing.T) {
	needSystemd(t)
	n := newNode(t, "units", 135)
	parent := path.Base(n.CgroupParent)
	bothRuntimes(t, n, func(t *testing.T, p *pod) {
		handler := strings.TrimPrefix(p.Config.GetMetadata().GetName(), "pod-")
		config := podConfig("shared-" + handler)
		config.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
		q := n.runPodOn(t, handler, config)
		c := containerConfig(q, "c", busybox, "sleep", "1000")
		c.Annotations = map[string]string{"io.kubernetes.pod.terminationGracePeriod": "77", "org.systemd.property.MemoryHigh": "uint64 4096"}
		c.StopSignal = cri.Signal_SIGNAL_SIGINT
		id := n.CreateContainer(t, q, c)
		n.StartContainer(t, id)

		slice, scope, pause := parent+"-pod"+q.ID+".slice", "criserver-"+id+".scope", "criserver-pause-"+q.ID+".scope"
		shown := systemctl(t, "show", scope, "--property=Slice,TimeoutStopUSec,KillSignal,MemoryHigh,TasksMax,CollectMode,Conflicts,Before,After")
		for _, want := range []string{
			"Slice=" + slice, "TimeoutStopUSec=1min 17s", "KillSignal=2", "MemoryHigh=infinity", "TasksMax=infinity", "Conflicts=shutdown.target", "Before=shutdown.target", "CollectMode=inactive-or-failed",
		} {
			if !slices.Contains(strings.Split(shown, "\n"), want) {
				t.Errorf("the scope does not have %s:\n%s", want, shown)
			}
		}
		if !strings.Contains(shown, pause) {
			t.Errorf("order of the scope of the container: got\n%s\nwant it after %s", shown, pause)
		}
		if got := systemctl(t, "show", pause, "--property=Slice,ActiveState"); !strings.Contains(got, "Slice="+slice) || !strings.Contains(got, "ActiveState=active") {
			t.Errorf("scope of the pause process: got %s, want slice %s and active", got, slice)
		}
		n.RemovePod(t, q.ID)
		if units := systemctl(t, "list-units", "--all", "--plain", "--no-legend", slice, scope, pause); units != "" {
			t.Errorf("units after the removal of the pod: got\n%s\nwant none", units)
		}
	})
}

// TestSlicesOfMissingPodsAreStopped checks that a daemon stops slices that a killed daemon
// has left.
func TestSlicesOfMissingPodsAreStopped(t *testing.T) {
	needSystemd(t)
	n := newNode(t, "lost", 136)
	slice := path.Base(n.CgroupParent) + "-pod" + strings.Repeat("5a", 32) + ".slice"
	systemctl(t, "start", slice)
	n.Kill()
	n.restart(t)
	waitFor(t, "the slice is stopped", func() bool {
		return systemctl(t, "list-units", "--all", "--plain", "--no-legend", slice) == ""
	})
}
