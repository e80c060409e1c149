package systemd

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// command runs a program and returns its output; the program must succeed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s\n%s", name, strings.Join(args, " "), err, out, journalTail())
	}
	return strings.TrimSpace(string(out))
}

// quietly runs a program that may fail.
func quietly(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, "systemctl", args...)
}

// property returns a property of a unit.
func property(t *testing.T, of, name string) string {
	t.Helper()
	return systemctl(t, "show", "--value", "--property", name, of)
}

// mainPID returns the process of the daemon, or 0.
func mainPID(t *testing.T) int {
	t.Helper()
	pid, err := strconv.Atoi(property(t, unit, "MainPID"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// unitState describes the unit in one line.
func unitState() string {
	out, err := exec.Command("systemctl", "show", "--property", "ActiveState,SubState,Result,ExecMainStatus,NRestarts", unit).CombinedOutput()
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// journalTail returns the last lines of the unit's journal, for a failure.
func journalTail() string {
	out, _ := exec.Command("journalctl", "--no-pager", "-u", unit, "-n", "30", "-o", "short-precise").CombinedOutput()
	return unitState() + "\n" + string(out)
}

// entry is a line of the journal.
type entry struct {
	Message  string
	Priority int
	PID      int
	Cursor   string
}

// journal returns the entries of a selection of the journal.
func journal(t *testing.T, args ...string) []entry {
	t.Helper()
	command(t, "journalctl", "--sync")
	out, err := exec.Command("journalctl", append([]string{"--no-pager", "--quiet", "--all", "-o", "json"}, args...)...).Output()
	if err != nil {
		t.Fatalf("journalctl %v: %v", args, err)
	}
	var entries []entry
	for line := range strings.Lines(string(out)) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("journal entry %q: %v", line, err)
		}
		field := func(name string) string { s, _ := fields[name].(string); return s }
		e := entry{Message: field("MESSAGE"), Cursor: field("__CURSOR")}
		e.Priority, _ = strconv.Atoi(field("PRIORITY"))
		e.PID, _ = strconv.Atoi(field("_PID"))
		entries = append(entries, e)
	}
	return entries
}

// cursor returns the current end of the journal.
func cursor(t *testing.T) string {
	t.Helper()
	all := journal(t, "-n", "1")
	if len(all) != 1 {
		t.Fatalf("the journal has %d last entries", len(all))
	}
	return all[0].Cursor
}

// complaints returns the unexpected warnings and errors of the daemon and of systemd
// about the unit since a cursor.
func complaints(t *testing.T, since string, expected ...string) []string {
	t.Helper()
	var found []string
	for _, e := range journal(t, "-u", unit, "--after-cursor", since) {
		bad := strings.Contains(e.Message, "level=warning") || strings.Contains(e.Message, "level=error") ||
			strings.Contains(e.Message, "level=fatal") || strings.Contains(e.Message, "panic") ||
			e.PID == 1 && e.Priority <= 4
		if bad && !slices.ContainsFunc(expected, func(part string) bool { return strings.Contains(e.Message, part) }) {
			found = append(found, e.Message)
		}
	}
	return found
}

// cgroupOf returns the v2 cgroup of a process.
func cgroupOf(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	path, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "0::")
	if !ok {
		return "", fmt.Errorf("process %d has the cgroups %q", pid, b)
	}
	return path, nil
}

// cgroupDir returns the directory of the cgroup of the daemon's unit.
func cgroupDir(t *testing.T) string {
	t.Helper()
	path := property(t, unit, "ControlGroup")
	if path == "" {
		path = "/system.slice/" + unit // systemd does not name the cgroup of a unit that is stopped
	}
	return "/sys/fs/cgroup" + path
}

// processesIn returns the processes in the cgroup of a directory.
func processesIn(dir string) []int {
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")) // no file means no process
	var pids []int
	for _, word := range strings.Fields(string(b)) {
		pid, _ := strconv.Atoi(word)
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids
}

// monitors returns the processes in the monitors' cgroup.
func monitors(t *testing.T) []int {
	t.Helper()
	return processesIn(filepath.Join(cgroupDir(t), "monitors"))
}

// process identifies a process beyond its pid.
type process struct {
	PID   int
	Start string // field 22 of /proc/PID/stat
}

func identify(pid int) (process, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return process{}, fmt.Errorf("process %d has ended", pid)
	}
	return process{pid, fields[19]}, nil
}

// startLimit is the longest time until the daemon serves on a fast host.
const startLimit = 8 * time.Second

// serving waits until the unit is active, by another process than before, and
// checks that systemd is content with the unit.
func serving(t *testing.T, before int) {
	t.Helper()
	begun := time.Now()
	eventually(t, startLimit, func() error {
		if pid := mainPID(t); pid == 0 || pid == before || property(t, unit, "ActiveState") != "active" {
			return fmt.Errorf("the unit does not serve: %s", unitState())
		}
		return nil
	})
	if result := property(t, unit, "Result"); result != "success" {
		t.Errorf("the unit is active with result %s", result)
	}
	t.Logf("the daemon serves after %s", time.Since(begun).Round(10*time.Millisecond))
}
