package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSystemdMonitorCgroup(t *testing.T) {
	for _, tc := range []struct{ unitCgroup, cgroupParent, want string }{
		{"/system.slice/criserver.service", "criserver.slice", "/system.slice/criserver.service/monitors"},
		{"/user.slice/user-0.slice/session-1.scope", "criserver.slice", "/user.slice/user-0.slice/session-1.scope/monitors"},
		{"", "criserver.slice", "/criserver-monitors"},
		{"", "/a/other.slice", "/other-monitors"},
	} {
		if got := systemdMonitorCgroup(tc.unitCgroup, tc.cgroupParent); got != tc.want {
			t.Errorf("systemdMonitorCgroup(%q, %q) = %q, want %q", tc.unitCgroup, tc.cgroupParent, got, tc.want)
		}
	}
}

// TestMonitorCandidates puts a program named conmon next to the daemon, as the conmon
// package of a distribution does in /usr/bin.
func TestMonitorCandidates(t *testing.T) {
	prefix := t.TempDir()
	binDir := filepath.Join(prefix, "bin")
	monitor := filepath.Join(prefix, "libexec", "criserver", "conmon")
	otherConmon := filepath.Join(binDir, "conmon")
	for _, path := range []string{otherConmon, monitor} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := firstExecutable(monitorCandidates(binDir)); got != monitor {
		t.Errorf("with both files: got %q, want %q", got, monitor)
	}
	if err := os.Remove(monitor); err != nil {
		t.Fatal(err)
	}
	if got := firstExecutable(monitorCandidates(binDir)); got != otherConmon {
		t.Errorf("without the file in libexec: got %q, want %q", got, otherConmon)
	}
}
