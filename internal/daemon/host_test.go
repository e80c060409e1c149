package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMonitorsBelow(t *testing.T) {
	for _, tc := range []struct{ unit, parent, want string }{
		{"/system.slice/criserver.service", "criserver.slice", "/system.slice/criserver.service/monitors"},
		{"/user.slice/user-0.slice/session-1.scope", "criserver.slice", "/user.slice/user-0.slice/session-1.scope/monitors"},
		{"", "criserver.slice", "/criserver-monitors"},
		{"", "/a/other.slice", "/other-monitors"},
	} {
		if got := monitorsBelow(tc.unit, tc.parent); got != tc.want {
			t.Errorf("unit %q, parent %q: %q, want %q", tc.unit, tc.parent, got, tc.want)
		}
	}
}

// TestMonitorOfAnotherProgram has a program named conmon beside the daemon, as
// the distribution's package for Podman installs it in /usr/bin.
func TestMonitorOfAnotherProgram(t *testing.T) {
	prefix := t.TempDir()
	bin, own := filepath.Join(prefix, "bin"), filepath.Join(prefix, "libexec", "criserver", "conmon")
	foreign := filepath.Join(bin, "conmon")
	for _, path := range []string{foreign, own} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := firstExecutable(monitorCandidates(bin)); got != own {
		t.Errorf("with both monitors the daemon takes %q, want %q", got, own)
	}
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	if got := firstExecutable(monitorCandidates(bin)); got != foreign {
		t.Errorf("without a monitor in libexec the daemon takes %q, want %q", got, foreign)
	}
}
