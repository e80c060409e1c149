package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/test/harness"
)

func itoa(n int) string { return strconv.Itoa(n) }

// leftover is in the warning of systemd at each start while monitors run: they are
// processes of the unit that KillMode=process keeps.
var leftover = []string{"Found left-over process", "This usually indicates unclean termination", oldRuntime}

// killed is in the message of systemd about a killed daemon.
var killed = append(slices.Clone(leftover), "Main process exited, code=killed", "Failed with result 'signal'")

// TestLife restarts, kills and upgrades the daemon while containers run.
func TestLife(t *testing.T) {
	c := installed(t)
	warm := newFleet(t, c) // creates objects that remain: the bridge, rules, images, slices
	warm.stop()
	c.removeAll(t)
	before := traces(t)

	f := newFleet(t, c)
	watched := monitors(t)
	for _, life := range []struct {
		name     string
		do       func(*testing.T, *fleet)
		expected []string
	}{
		{"restart", restart, leftover},
		{"stop and start", stopAndStart, leftover},
		{"kill", kill, killed},
		{"systemctl kill of the main process", killMain, killed},
		{"terminate all processes of the unit", terminateAll, leftover},
		{"daemon-reload", reload, nil},
		{"reload of the configuration", reloadConfig, nil},
		{"daemon-reexec", reexec, leftover},
		{"upgrade", upgrade, leftover},
		{"kill again and again as soon as it serves", crashLoop, killed},
		{"kill again and again during the start", crashStart, append(slices.Clone(killed), "Failed to start")},
		{"error in the configuration", badConfig, append(slices.Clone(leftover),
			"Main process exited, code=exited, status=1/FAILURE", "Failed with result 'exit-code'", "Start request repeated too quickly",
			"Failed to start", "level=fatal", "level=error")},
		{"stop while containers end", longStop, leftover},
	} {
		ok := t.Run(life.name, func(t *testing.T) {
			f.t = t
			since := cursor(t)
			_ = quietly("systemctl", "reset-failed", unit) // earlier starts do not count
			life.do(t, f)
			f.check()
			if now := monitors(t); !subset(watched, now) {
				t.Errorf("the monitors %v are not among the processes of the monitors' cgroup any more: %v", watched, now)
			}
			if found := complaints(t, since, life.expected...); len(found) > 0 {
				t.Errorf("the journal has:\n%s", strings.Join(found, "\n"))
			}
		})
		if !ok && t.Failed() && broken(t) {
			break
		}
	}
	f.t = t
	f.stop()
	c.removeAll(t)
	checkLeaks(t, before)
}

// broken reports whether no daemon serves, so that further tests cannot succeed. It
// first tries to start the daemon.
func broken(t *testing.T) bool {
	_ = quietly("systemctl", "reset-failed", unit)
	_ = quietly("systemctl", "start", unit)
	return property(t, unit, "ActiveState") != "active"
}

func subset(part, of []int) bool {
	return !slices.ContainsFunc(part, func(n int) bool { return !slices.Contains(of, n) })
}

func restart(t *testing.T, f *fleet) {
	m, before := f.startEphemeral(), mainPID(t)
	f.end(m)
	systemctl(t, "restart", unit)
	serving(t, before)
	f.checkExit(m, time.Now())
}

func stopAndStart(t *testing.T, f *fleet) {
	m := f.startEphemeral()
	pid := f.ContainerPID(t, m.id)
	systemctl(t, "stop", unit)
	if state := unitState(); !strings.Contains(state, "ActiveState=inactive") || !strings.Contains(state, "Result=success") {
		t.Errorf("after the stop: %s", state)
	}
	f.end(m)
	eventually(t, 10*time.Second, func() error {
		if exists(pid) {
			return fmt.Errorf("the container without a daemon does not end")
		}
		return nil
	})
	ended := time.Now()
	time.Sleep(2 * time.Second)
	systemctl(t, "start", unit)
	serving(t, 0)
	f.checkExit(m, ended.Add(time.Second))
}

func kill(t *testing.T, f *fleet) {
	m, before := f.startEphemeral(), mainPID(t)
	if err := unix.Kill(before, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.end(m)
	serving(t, before)
	f.checkExit(m, time.Now())
}

func killMain(t *testing.T, f *fleet) {
	m, before := f.startEphemeral(), mainPID(t)
	systemctl(t, "kill", "--kill-whom=main", "--signal=SIGKILL", unit)
	f.end(m)
	serving(t, before)
	f.checkExit(m, time.Now())
}

// terminateAll sends SIGTERM to the monitors, too, which ignore it.
func terminateAll(t *testing.T, f *fleet) {
	m, before := f.startEphemeral(), mainPID(t)
	systemctl(t, "kill", unit)
	f.end(m)
	serving(t, before)
	f.checkExit(m, time.Now())
}

func reload(t *testing.T, f *fleet) {
	m, before := f.startEphemeral(), mainPID(t)
	systemctl(t, "daemon-reload")
	f.end(m)
	f.checkExit(m, time.Now().Add(harness.Patience(30*time.Second)))
	if now := mainPID(t); now != before {
		t.Errorf("the daemon is process %d, it was %d", now, before)
	}
}

func reexec(t *testing.T, f *fleet) {
	m, before := f.startEphemeral(), mainPID(t)
	systemctl(t, "daemon-reexec")
	f.end(m)
	f.checkExit(m, time.Now().Add(harness.Patience(30*time.Second)))
	if now := mainPID(t); now != before || property(t, unit, "ActiveState") != "active" {
		t.Errorf("the daemon is process %d, it was %d: %s", now, before, unitState())
	}
	restart(t, f) // systemd can still restart the unit
}

// upgrade replaces the programs while monitors of the old program run.
func upgrade(t *testing.T, f *fleet) {
	m, before := f.startEphemeral(), mainPID(t)
	f.end(m)
	follow(t, "Upgrade")
	serving(t, before)
	f.checkExit(m, time.Now())
	for _, pid := range monitors(t) {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || !strings.HasSuffix(exe, " (deleted)") {
			t.Errorf("monitor %d runs %q, %v; the upgrade must not replace its program", pid, exe, err)
		}
	}
	m = f.startEphemeral() // a container of the new monitor
	f.end(m)
	f.checkExit(m, time.Now().Add(harness.Patience(30*time.Second)))
}

// crashes is the number of kills in a crash loop.
func crashes() int {
	if testing.Short() {
		return 3
	}
	return 10
}

func crashLoop(t *testing.T, f *fleet) {
	m := f.startEphemeral()
	for i := range crashes() {
		before := mainPID(t)
		if err := unix.Kill(before, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if i == crashes()/2 {
			f.end(m)
		}
		serving(t, before)
	}
	f.checkExit(m, time.Now())
}

// crashStart kills the daemon at different moments of its start.
func crashStart(t *testing.T, f *fleet) {
	m := f.startEphemeral()
	before := mainPID(t)
	if err := unix.Kill(before, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for i := range crashes() {
		next := before
		eventually(t, 10*time.Second, func() error {
			if pid := mainPID(t); pid != 0 && pid != before {
				next = pid
				return nil
			}
			return fmt.Errorf("systemd does not restart the daemon: %s", unitState())
		})
		if i == crashes()/2 {
			f.end(m)
		}
		time.Sleep(harness.Patience(time.Duration(i*20) * time.Millisecond))
		if err := unix.Kill(next, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		before = next
	}
	serving(t, before)
	f.checkExit(m, time.Now())
}

// badConfig has an error in the configuration make every start fail, until
// systemd gives up, and repairs it. A limit for the test makes systemd give up
// after a few starts, also on a slow machine.
func badConfig(t *testing.T, f *fleet) {
	m := f.startEphemeral()
	limit := "/run/systemd/system/" + unit + ".d/50-test.conf"
	if err := os.MkdirAll(filepath.Dir(limit), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(limit, []byte("[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=4\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	systemctl(t, "daemon-reload")
	defer func() {
		if err := os.RemoveAll(filepath.Dir(limit)); err != nil {
			t.Error(err)
		}
		systemctl(t, "daemon-reload")
	}()
	file := "/etc/criserver/criserver.toml.d/99-test.toml"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file)
	if err := os.WriteFile(file, []byte("log_level = \"loud\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	since := cursor(t)
	if err := quietly("systemctl", "restart", unit); err == nil {
		t.Error("systemctl restart succeeds with an error in the configuration")
	}
	f.end(m)
	eventually(t, 60*time.Second, func() error {
		for _, e := range journal(t, "-u", unit, "--after-cursor", since) {
			if strings.Contains(e.Message, "Start request repeated too quickly") {
				return nil
			}
		}
		return fmt.Errorf("systemd does not give up: %s", unitState())
	})
	named := slices.ContainsFunc(journal(t, "-u", unit, "--after-cursor", since), func(e entry) bool {
		return strings.Contains(e.Message, file) && strings.Contains(e.Message, "log_level")
	})
	if !named {
		t.Errorf("the journal does not name the file and the key:\n%s", journalTail())
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	systemctl(t, "reset-failed", unit)
	systemctl(t, "start", unit)
	serving(t, 0)
	f.checkExit(m, time.Now())
}

// longStop lets containers exit one after the other while no daemon runs.
func longStop(t *testing.T, f *fleet) {
	var mortals []*ephemeral
	var ends []time.Time
	for range 4 {
		mortals = append(mortals, f.startEphemeral())
	}
	pids := make([]int, len(mortals))
	for i, m := range mortals {
		pids[i] = f.ContainerPID(t, m.id)
	}
	systemctl(t, "stop", unit)
	for i, m := range mortals {
		f.end(m)
		eventually(t, 10*time.Second, func() error {
			if exists(pids[i]) {
				return fmt.Errorf("container %d does not end", i)
			}
			return nil
		})
		ends = append(ends, time.Now().Add(time.Second))
		time.Sleep(5 * time.Second)
	}
	systemctl(t, "start", unit)
	serving(t, 0)
	for i, m := range mortals {
		f.checkExit(m, ends[i])
	}
}
