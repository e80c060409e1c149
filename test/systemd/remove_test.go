package systemd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWipe checks that wipe, which runs outside of the daemon's unit, removes the cgroup of the monitors below the
// unit.
func TestWipe(t *testing.T) {
	c := installed(t)
	c.Pull(t, busybox)
	p := c.runPod(t, podConfig("wiped"))
	c.RunContainer(t, p, containerConfig(p, "wiped", "sleep", "100000"))
	dir := filepath.Join(cgroupDir(t), "monitors")
	systemctl(t, "stop", unit)
	if n := len(processesIn(dir)); n != 1 {
		t.Errorf("monitors of the stopped daemon: got %d, want 1", n)
	}
	command(t, "criserver", "wipe", "--force", "--yes")
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cgroup of the monitors after wipe: got %v, want that it does not exist", err)
	}
	systemctl(t, "start", unit)
	serving(t, 0)
	c = dial(t)
	p = c.runPod(t, podConfig("after"))
	c.RunContainer(t, p, containerConfig(p, "after", "sleep", "100000"))
	c.removeAll(t)
}

// TestRemove removes the daemon with the commands of docs/install.md and checks
// that nothing of the daemon remains on the host.
func TestRemove(t *testing.T) {
	c := installed(t)
	c.Pull(t, busybox)
	p := c.runPod(t, podConfig("removed"))
	c.RunContainer(t, p, containerConfig(p, "removed", "sleep", "100000"))
	follow(t, "Remove")
	for what := range traces(t) {
		if strings.Contains(what, "criserver") || strings.Contains(what, "cri0") || strings.Contains(what, p.ID) {
			t.Errorf("left behind: %s", what)
		}
	}
	if tables := command(t, "nft", "list", "tables"); strings.Contains(tables, "criserver") {
		t.Errorf("left behind: %s", tables)
	}
	for _, path := range []string{"/run/criserver", "/var/lib/criserver", "/usr/bin/criserver", "/usr/libexec/criserver"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	if state := property(t, unit, "LoadState"); state != "not-found" {
		t.Errorf("systemd still knows the unit: %s", state)
	}
}
