package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/test/harness"
)

// TestSystemd boots a machine with systemd, and checks that it has a system bus, sees only its cgroups, and starts
// services. Kill leaves no process.
func TestSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err != nil || !harness.Unified() {
		t.Skip("the host has no cgroup v2 with systemd")
	}
	dir := filepath.Join("/sys/fs/cgroup", fmt.Sprintf("criserver-machine-test%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := Start(Config{Name: "box", Dir: t.TempDir(), Path: "/usr/bin", Cgroups: []string{dir}, Systemd: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Kill()
		eventually(t, func() error { return removeTree(dir) })
	})
	for script, want := range map[string]string{
		"ps -p 1 -o comm=": "systemd",
		"cat /proc/sys/kernel/hostname; systemctl is-active node.target agent.service dbus.service":                                            "box\nactive\nactive\nactive",
		"busctl --system get-property org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager Version | cut -c1-3": `s "`,
		"systemd-run --wait --pipe --quiet -p DefaultDependencies=no --unit=job grep ^0:: /proc/self/cgroup":                                   "0::/system.slice/job.service",
	} {
		out, err := m.Run(t.Context(), "sh", "-c", script)
		if err != nil || !strings.Contains("\n"+out, "\n"+want+"\n") {
			t.Errorf("%s: %v: %q, want %q", script, err, out, want)
		}
	}
	if err := m.StartService("job", []string{"KEY=value"}, "sh", "-c", "echo $KEY; exec grep ^0:: /proc/self/cgroup"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		log, err := os.ReadFile(m.LogPath("job"))
		if err == nil && !strings.HasPrefix(string(log), "value\n0::/system.slice/agent.service\n") {
			err = fmt.Errorf("log of the service: %q", log)
		}
		return err
	})
}

// removeTree removes a cgroup and its descendants, which have no processes.
func removeTree(dir string) error {
	children, err := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := removeTree(filepath.Dir(child)); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}
