package vm

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/test/vm/guest"
)

// project is where a guest has the project.
const project = guest.WorkDir + "/criserver"

func runGuest(t *testing.T, p guestPlan, results *table) {
	reports := filepath.Join(top, "test", "vm", "report", cmp.Or(p.name, p.guest))
	if err := os.RemoveAll(reports); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(reports, 0o755); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	m, err := boot(t, p, reports)
	if err != nil {
		t.Fatal(err)
	}
	system, err := m.Output(t.Context(), "sh", "-c", `. /etc/os-release; echo "$PRETTY_NAME, Linux $(uname -r) $(uname -m), systemd $(systemctl --version | awk 'NR == 1 { print $2 }')"`)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("booted within %s: %s", time.Since(start).Round(time.Second), system)
	// The cleanup keeps the logs of the guest for the case that a suite fails.
	t.Cleanup(func() { keepSystemLogs(m, reports) })
	lost := false
	for _, s := range p.suites {
		t.Run(s.name, func(t *testing.T) {
			if lost {
				t.Fatal("the guest did not come back from a reboot")
			}
			lost = !runSuite(t, m, s, reports, results)
		})
	}
}

// runSuite runs a suite in the guest and judges its exit status. Its output is kept in a file. It reports false if the
// guest did not come back from a reboot.
func runSuite(t *testing.T, m *guest.Machine, s suite, reports string, results *table) (reachable bool) {
	start := time.Now()
	path := filepath.Join(reports, s.name+".log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	reachable = true
	err = runPart(t.Context(), m, s, s.args, log)
	if err == nil && s.reboot != nil {
		if err = m.Reboot(t.Context()); err == nil {
			err = runPart(t.Context(), m, s, s.reboot, log)
		} else {
			s.reports, reachable = nil, false
		}
	}
	counts, readErr := judge(path, filepath.Join(reports, s.name+".junit.xml"), m.Name+"/"+s.name)
	results.add(row{m.Name, s.name, counts, time.Since(start)})
	if readErr != nil {
		t.Error(readErr)
	}
	for _, dir := range s.reports {
		if err := extract(m, filepath.Join(project, s.dir, dir), filepath.Join(reports, s.name)); err != nil {
			t.Error(err)
		}
	}
	switch {
	case err != nil:
		t.Errorf("%v\n%s\nthe whole output is in %s", err, excerpt(path), path)
	case s.binary != "" && counts.passed == 0:
		t.Errorf("no test passed; the output is in %s", path)
	default:
		t.Logf("%d passed, %d skipped", counts.passed, counts.skipped)
	}
	return reachable
}

// outputGrace is the time that a test binary has to print its goroutines after its own timeout.
const outputGrace = 5 * time.Minute

func runPart(ctx context.Context, m *guest.Machine, s suite, args []string, log io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout+outputGrace, fmt.Errorf("the suite took more than %s", s.timeout))
	defer cancel()
	if s.binary != "" {
		args = append(slices.Clone(args), "-test.timeout="+s.timeout.String())
		if !*full {
			args = append(args, s.brief...)
		}
		if *focus != "" && s.reboot == nil {
			args = append(args, "-test.run="+*focus)
		}
		args = append([]string{"./" + s.binary}, args...)
	}
	code, err := m.Run(ctx, guest.Command{
		Args: args, Dir: filepath.Join(project, s.dir), Stdout: log, Stderr: log,
		Env: append([]string{
			"CRISERVER_TEST_PATIENCE=" + *patience,
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + guest.ProgramsDir,
		}, s.env...),
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d", code)
	}
	return err
}

// extract copies a directory of the guest to the host.
func extract(m *guest.Machine, from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var archive, errs bytes.Buffer
	code, err := m.Run(ctx, guest.Command{Args: []string{"tar", "-C", from, "-cf", "-", "."}, Stdout: &archive, Stderr: &errs})
	if err != nil || code != 0 {
		return fmt.Errorf("extract %s: exit status %d, %v: %s", from, code, err, errs.String())
	}
	cmd := exec.CommandContext(ctx, "tar", "-C", to, "-xf", "-", "--no-same-owner")
	cmd.Stdin = &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w: %s", from, err, out)
	}
	return nil
}

func keepSystemLogs(m *guest.Machine, reports string) {
	if console, err := os.ReadFile(m.Console()); err == nil {
		_ = os.WriteFile(filepath.Join(reports, "console.log"), console, 0o644)
	}
	log, err := os.Create(filepath.Join(reports, "journal.log"))
	if err != nil {
		return
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, _ = m.Run(ctx, guest.Command{Args: []string{"journalctl", "--no-pager", "-o", "short-monotonic", "-n", "20000"}, Stdout: log, Stderr: log})
}

// excerpt returns the lines of a log that say what failed, and its end.
func excerpt(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	const most, last = 40, 40
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	var failures []string
	for i, line := range lines {
		failed := strings.HasPrefix(strings.TrimSpace(line), "--- FAIL") || strings.HasPrefix(line, "panic: ")
		if failed && i < len(lines)-last && len(failures) < most {
			failures = append(failures, line)
		}
	}
	return strings.Join(append(failures, lines[max(0, len(lines)-last):]...), "\n")
}
