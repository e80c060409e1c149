package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// reloadConfig changes the log level of the running daemon with `systemctl reload`, and changes it back.
func reloadConfig(t *testing.T, f *fleet) {
	m, before := f.startEphemeral(), mainPID(t)
	first, changed := logLevel(t), "debug"
	if first == changed {
		t.Fatalf("the daemon has the log level %s before the test", first)
	}
	file := "/etc/criserver/criserver.toml.d/99-test.toml"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file)
	if err := os.WriteFile(file, fmt.Appendf(nil, "log_level = %q\n", changed), 0o644); err != nil {
		t.Fatal(err)
	}
	reloadTo(t, changed)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	reloadTo(t, first)
	f.end(m)
	f.checkExit(m, time.Now().Add(harness.Patience(30*time.Second)))
	if now := mainPID(t); now != before {
		t.Errorf("the daemon is process %d, it was %d", now, before)
	}
}

func logLevel(t *testing.T) string {
	t.Helper()
	return command(t, "criserver", "log-level")
}

// reloadTo reloads the configuration. The daemon must then have a log level, and the unit must be active.
// systemctl does not wait for the end of the reload.
func reloadTo(t *testing.T, level string) {
	t.Helper()
	systemctl(t, "reload", unit)
	eventually(t, 10*time.Second, func() error {
		if got, state := logLevel(t), property(t, unit, "ActiveState"); got != level || state != "active" {
			return fmt.Errorf("after the reload, the log level is %s, want %s; the unit is %s", got, level, state)
		}
		return nil
	})
}
