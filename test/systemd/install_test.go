package systemd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// installed installs the daemon unless an earlier test has done so.
func installed(t *testing.T) *client {
	t.Helper()
	if _, err := os.Stat("/etc/systemd/system/" + unit); err != nil {
		follow(t, "Install")
	}
	if state := property(t, unit, "ActiveState"); state != "active" {
		systemctl(t, "reset-failed", unit)
		systemctl(t, "start", unit)
	}
	c := dial(t)
	c.removeAll(t)
	return c
}

// oldRuntime is in the warning about an OCI runtime with known vulnerabilities,
// which the distribution's runc may be.
const oldRuntime = "(CVE-"

// TestInstall installs the daemon by the commands of docs/install.md.
func TestInstall(t *testing.T) {
	for _, p := range packages(t) {
		command(t, "dpkg-query", "-s", p) // a guest has no network to install it from
	}
	if harness.SELinux() {
		follow(t, "SELinux")
	}
	since := cursor(t)
	follow(t, "Install")
	serving(t, 0)
	if found := complaints(t, since, oldRuntime); len(found) > 0 {
		t.Errorf("the first start logged:\n%s", strings.Join(found, "\n"))
	}
	if enabled := systemctl(t, "is-enabled", unit); enabled != "enabled" {
		t.Errorf("the unit is %s", enabled)
	}
	since = cursor(t)
	out := follow(t, "Verify")
	for _, part := range []string{"active (running)", "hello\n", "inet 10.88.", "inet6 fd00:88:"} {
		if !strings.Contains(out, part) {
			t.Errorf("the commands that verify the installation do not print %q:\n%s", part, out)
		}
	}
	// The daemon serves before it knows the versions of the runtimes.
	if found := complaints(t, since, oldRuntime); len(found) > 0 {
		t.Errorf("the first pod logged:\n%s", strings.Join(found, "\n"))
	}
	c := dial(t)
	t.Run("status", func(t *testing.T) { testStatus(t, c) })
	t.Run("units", func(t *testing.T) { testUnits(t, c) })
}

// testStatus checks the selections of the daemon on this host.
func testStatus(t *testing.T, c *client) {
	r, err := c.RuntimeService.Status(limited(t), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, condition := range r.GetStatus().GetConditions() {
		if !condition.GetStatus() {
			t.Errorf("condition %s is false: %s: %s", condition.GetType(), condition.GetReason(), condition.GetMessage())
		}
	}
	config, err := c.RuntimeService.RuntimeConfig(limited(t), &cri.RuntimeConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if driver := config.GetLinux().GetCgroupDriver(); driver != cri.CgroupDriver_SYSTEMD {
		t.Errorf("the cgroup driver is %s", driver)
	}
}

// testUnits checks that systemd knows the pod's slice, the container's scope and
// the monitor, and that none of them remains after the pod.
func testUnits(t *testing.T, c *client) {
	before := traces(t)
	p := c.runPod(t, podConfig("units"))
	id := c.RunContainer(t, p, containerConfig(p, "units", "sh", "-c", count))
	pid := c.ContainerPID(t, id)
	path, err := cgroupOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	scope, slice := unitsOf(path)
	if scope == "" || slice == "" || !strings.HasPrefix(path, "/criserver.slice/") {
		t.Fatalf("the container is in the cgroup %q, which has no scope in a slice below criserver.slice", path)
	}
	for _, u := range []string{scope, slice} {
		if state := property(t, u, "ActiveState"); state != "active" {
			t.Errorf("unit %s is %s", u, state)
		}
		systemctl(t, "status", "--no-pager", u)
	}
	if found := monitors(t); len(found) != 1 {
		t.Errorf("the monitors' cgroup has the processes %v, want one", found)
	} else if comm, _ := os.ReadFile("/proc/" + itoa(found[0]) + "/comm"); strings.TrimSpace(string(comm)) != "conmon" {
		t.Errorf("the process in the monitors' cgroup is %s", comm)
	}
	if cgroup, err := cgroupOf(mainPID(t)); err != nil || strings.Contains(cgroup, "monitors") || !strings.Contains(cgroup, unit) {
		t.Errorf("cgroup of the daemon: got %q (error %v), want that of %s", cgroup, err, unit)
	}
	c.removeAll(t)
	if exists(pid) {
		t.Errorf("process %d of the container is alive after the removal", pid)
	}
	checkLeaks(t, before)
}

// unitsOf returns the scope and the innermost slice in a cgroup path.
func unitsOf(path string) (scope, slice string) {
	for _, name := range strings.Split(path, "/") {
		switch filepath.Ext(name) {
		case ".scope":
			scope = name
		case ".slice":
			slice = name
		}
	}
	return scope, slice
}
