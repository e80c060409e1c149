package systemd

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestMonitors checks that monitors are accounted to the daemon's unit, and that they
// survive restarts of the daemon and OOM kills in containers.
func TestMonitors(t *testing.T) {
	c := installed(t)
	c.Pull(t, busybox)
	before := traces(t)
	p := c.runPod(t, podConfig("monitors"))
	lives := c.RunContainer(t, p, containerConfig(p, "lives", "sh", "-c", count))
	watched := monitors(t)
	if len(watched) != 1 {
		t.Fatalf("one container has the monitors %v", watched)
	}
	survives := func(t *testing.T) {
		t.Helper()
		if !exists(watched[0]) || !subset(watched, monitors(t)) {
			t.Fatalf("monitor %d is not alive in its cgroup; it has %v", watched[0], monitors(t))
		}
		c.Exec(t, lives, "true")
	}

	t.Run("they are accounted for in the unit", func(t *testing.T) {
		testAccounting(t, watched[0])
	})
	t.Run("systemctl stop", func(t *testing.T) {
		memory := number(t, filepath.Join(cgroupDir(t), "memory.current"))
		systemctl(t, "stop", unit)
		if now := number(t, filepath.Join(cgroupDir(t), "memory.current")); now == 0 || now > memory {
			t.Errorf("the stopped unit with a monitor has %d bytes of memory; with the daemon it had %d", now, memory)
		}
		if !exists(watched[0]) {
			t.Errorf("monitor %d has ended with the daemon", watched[0])
		}
		systemctl(t, "start", unit)
		survives(t)
	})
	t.Run("a child of a container runs out of memory", func(t *testing.T) {
		config := containerConfig(p, "child", "sh", "-c", "tail /dev/zero; echo ended with $?; exec sleep 100000")
		config.Linux.Resources.MemoryLimitInBytes = 24 << 20
		id := c.RunContainer(t, p, config)
		eventually(t, 60*time.Second, func() error { return logHas(p, "child", "ended with 137") })
		survives(t)
		if n := len(monitors(t)); n != 2 {
			t.Errorf("two containers have %d monitors", n)
		}
		if state := c.ContainerStatus(t, id); state.GetFinishedAt() != 0 {
			t.Errorf("the container whose child ran out of memory is %v", state)
		}
	})
	t.Run("the first process of a container runs out of memory", func(t *testing.T) {
		config := containerConfig(p, "first", "tail", "/dev/zero")
		config.Linux.Resources.MemoryLimitInBytes = 24 << 20
		s := c.WaitExited(t, c.RunContainer(t, p, config))
		if s.GetExitCode() != 137 || s.GetReason() != "OOMKilled" {
			t.Errorf("exit code %d, reason %q; want 137, OOMKilled", s.GetExitCode(), s.GetReason())
		}
		survives(t)
	})
	t.Run("systemd-oomd", func(t *testing.T) { testOOMD(t, c); survives(t) })
	for _, e := range journal(t, "-k", "-b") {
		if strings.Contains(e.Message, "Killed process") && strings.Contains(e.Message, "(conmon)") {
			t.Errorf("the kernel killed a monitor: %s", e.Message)
		}
	}
	c.removeAll(t)
	checkLeaks(t, before)
}

func logHas(p *pod, name, want string) error {
	b, err := os.ReadFile(filepath.Join(p.Config.GetLogDirectory(), name+".log"))
	if err == nil && !strings.Contains(string(b), want) {
		err = os.ErrNotExist
	}
	return err
}

// number reads a file that has one number.
func number(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// testAccounting checks that systemd counts the monitor in the unit.
func testAccounting(t *testing.T, monitor int) {
	for _, tool := range [][]string{
		{"systemctl", "status", "--no-pager", unit},
		{"systemd-cgls", "--no-pager", "--full", "-u", unit},
	} {
		if out := command(t, tool[0], tool[1:]...); !strings.Contains(out, "conmon") || !strings.Contains(out, itoa(monitor)) {
			t.Errorf("%s does not show monitor %d:\n%s", strings.Join(tool, " "), monitor, out)
		}
	}
	dir := cgroupDir(t)
	if n := number(t, filepath.Join(dir, "memory.current")); n == 0 {
		t.Error("the unit has no memory")
	}
	threads := 0
	for _, pid := range []int{monitor, mainPID(t)} {
		tasks, err := os.ReadDir("/proc/" + itoa(pid) + "/task")
		if err != nil {
			t.Fatal(err)
		}
		threads += len(tasks)
	}
	// The daemon's runtime starts threads at any time, so the numbers are close but not equal.
	unitThreads := number(t, filepath.Join(dir, "pids.current"))
	if unitThreads < threads-3 || unitThreads > threads+6 {
		t.Errorf("threads of the unit: got %d, want about %d of the daemon and its monitor", unitThreads, threads)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "monitors"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "memory.max" || e.Name() == "pids.max" {
			t.Errorf("the monitors' cgroup has a controller: %s", e.Name())
		}
	}
}

// testOOMD checks that systemd-oomd must leave the unit with the monitors alone,
// and has it kill a container.
func testOOMD(t *testing.T, c *client) {
	if preference := property(t, unit, "ManagedOOMPreference"); preference != "omit" {
		t.Errorf("ManagedOOMPreference of the unit is %q, want omit", preference)
	}
	set := false
	for _, name := range []string{"user.oomd_omit", "trusted.oomd_omit"} { // the name depends on the version of systemd
		var value [8]byte
		if n, err := unix.Getxattr(cgroupDir(t), name, value[:]); err == nil && string(value[:n]) == "1" {
			set = true
		}
	}
	if !set {
		t.Error("the cgroup of the unit has no attribute oomd_omit, which systemd-oomd reads")
	}
	if quietly("systemctl", "is-active", "--quiet", "systemd-oomd.service") != nil {
		t.Skip("the properties are as they must be; the host does not run systemd-oomd, which would use them")
	}
	// The kernel slows the container down at memory.high, so its memory pressure
	// rises long before the limit. systemd-oomd chooses only cgroups whose pages the
	// kernel scans, which without swap are pages of files.
	p := c.runPod(t, podConfig("pressure"))
	config := containerConfig(p, "pressure", "sh", "-c",
		"dd if=/dev/zero of=/file bs=1M count=48; tail /dev/zero & while true; do cat /file >/dev/null; done")
	config.Linux.Resources.MemoryLimitInBytes = 1 << 30
	config.Linux.Resources.Unified = map[string]string{"memory.high": "16777216"}
	id := c.RunContainer(t, p, config)
	path, err := cgroupOf(c.ContainerPID(t, id))
	if err != nil {
		t.Fatal(err)
	}
	_, slice := unitsOf(path)
	systemctl(t, "set-property", "--runtime", slice, "ManagedOOMMemoryPressure=kill", "ManagedOOMMemoryPressureLimit=5%")
	defer systemctl(t, "revert", slice)
	if out := command(t, "oomctl"); !strings.Contains(out, slice) || strings.Contains(out, unit) {
		t.Errorf("systemd-oomd must watch %s and not %s:\n%s", slice, unit, out)
	}
	var s *cri.ContainerStatus
	eventually(t, 60*time.Second, func() error { // systemd-oomd acts after 30 seconds of pressure
		if s = c.ContainerStatus(t, id); s.GetState() != cri.ContainerState_CONTAINER_EXITED {
			return errors.New("systemd-oomd does not kill the container under memory pressure")
		}
		return nil
	})
	if s.GetExitCode() != 137 {
		t.Errorf("the container that systemd-oomd killed has exit code %d, want 137", s.GetExitCode())
	}
	killed := journal(t, "-b", "-u", "systemd-oomd.service", "-g", "Killed")
	if len(killed) == 0 || !strings.Contains(killed[len(killed)-1].Message, id) {
		t.Errorf("systemd-oomd does not say that it killed the container: %v", killed)
	}
}
