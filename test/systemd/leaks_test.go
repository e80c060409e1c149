package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// traces returns a snapshot of the objects on the host that pods may leak.
func traces(t *testing.T) harness.Snapshot {
	t.Helper()
	s, err := harness.Take([]string{"/run/criserver", "/var/lib/criserver"}, "criserver", 0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", "--type=scope,slice,mount").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(f[0], "session-") && !strings.HasPrefix(f[0], "user") {
			s["unit "+f[0]] = line
		}
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, path := range stats {
		b, _ := os.ReadFile(path) // the process may have exited
		if strings.Contains(string(b), "criserver") {
			cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			// The daemon has another pid after each restart.
			name := strings.ReplaceAll(string(cmdline), "\x00", " ")
			if !strings.HasPrefix(name, "/usr/bin/criserver") {
				s[fmt.Sprintf("process %s of cgroup %s", name, strings.TrimSpace(string(b)))] = path
			}
		}
	}
	suiteCgroup, err := cgroupOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for what := range s {
		// The processes of harness.Take, and the unit that runs the suite, belong to the suite.
		// crun keeps compiled seccomp filters for the next container.
		if strings.HasPrefix(what, "process ") && !strings.Contains(what, " of cgroup ") ||
			strings.Contains(what, suiteCgroup) || what == "unit "+filepath.Base(suiteCgroup) || strings.Contains(what, "/runtimes/crun/.cache") {
			delete(s, what)
		}
	}
	return s
}

// checkLeaks waits until the host has nothing that it did not have before. The
// daemon deletes layers, and systemd removes units, after the last answer.
func checkLeaks(t *testing.T, before harness.Snapshot) {
	t.Helper()
	var left []string
	for end := time.Now().Add(harness.Patience(6 * time.Second)); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if left = traces(t).Since(before); len(left) == 0 {
			return
		}
	}
	for _, l := range left {
		t.Errorf("left behind: %s", l)
	}
}
