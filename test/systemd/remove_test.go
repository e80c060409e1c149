package systemd

import (
	"os"
	"strings"
	"testing"
)

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
