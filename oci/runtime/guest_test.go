package runtime

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestGuestDescendants(t *testing.T) {
	table := []byte("UID       PID       PPID      C         TTY       STIME     TIME      CMD\n" +
		"0         2         0         1         ?         07:48     10ms      httpd\n" +
		"0         7         0         0         ?         07:48     0s        sh\n" +
		"0         8         7         0         ?         07:48     0s        sh 9 7\n" +
		"0         9         8         0         ?         07:48     0s        sleep\n" +
		"malformed\n")
	tree := map[int]bool{7: true}
	got := guestDescendants(table, tree)
	if slices.Sort(got); !slices.Equal(got, []int{7, 8, 9}) || !maps.Equal(tree, map[int]bool{7: true, 8: true, 9: true}) {
		t.Errorf("descendants %v, tree %v", got, tree)
	}
	// 8 has exited, and 9 is an orphan, but still belongs to the tree.
	if got := guestDescendants([]byte("0 2 0\n0 9 0\n"), tree); !slices.Equal(got, []int{9}) {
		t.Errorf("orphan: %v", got)
	}
	if got := guestDescendants(nil, tree); len(got) != 0 {
		t.Errorf("empty table: %v", got)
	}
}

func FuzzGuestDescendants(f *testing.F) {
	f.Add([]byte("UID PID PPID\n0 1 1\n0 2 1\n0 1 2\n"))
	f.Fuzz(func(t *testing.T, table []byte) {
		for _, pid := range guestDescendants(table, map[int]bool{1: true}) {
			if !strings.Contains(string(table), fmt.Sprint(pid)) {
				t.Errorf("%d is not in %q", pid, table)
			}
		}
	})
}

func TestWait(t *testing.T) {
	for answer, want := range map[string]struct {
		code int32
		err  string
	}{
		`echo '{"id":"c","exitStatus":137}'`: {137, ""},
		`echo '{"id":"c","exitStatus":0}'`:   {0, ""},
		`echo '{"id":"c"}'`:                  {0, "no exit status"},
		`echo nonsense`:                      {0, "invalid character"},
		`echo gone >&2; exit 1`:              {0, "gone"},
	} {
		code, err := fakeRuntime(t, answer).Wait(t.Context(), "c")
		if code != want.code || (err != nil) != (want.err != "") || err != nil && !strings.Contains(err.Error(), want.err) {
			t.Errorf("%s: %d, %v", answer, code, err)
		}
	}
}

func TestGuestStats(t *testing.T) {
	r := fakeRuntime(t, `echo '{"type":"stats","id":"c","data":{"cpu":{"usage":{"total":361}},"memory":{"usage":{"limit":0,"usage":4653056}},"pids":{"current":3}}}'`)
	s, err := r.GuestStats(t.Context(), "c")
	if err != nil || s.CPUUsage != 361 || s.Memory.Usage != 4653056 || s.Memory.WorkingSet != 4653056 || s.Pids != 3 || s.Time.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := fakeRuntime(t, "echo nonsense").GuestStats(t.Context(), "c"); err == nil {
		t.Error("malformed output: no error")
	}
}

// TestDeleteReapsGuestProcesses checks that the runtime waits for processes while it deletes. Their
// parent must reap them.
func TestDeleteReapsGuestProcesses(t *testing.T) {
	helper := exec.Command("sleep", "1000")
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	// Like runsc, the runtime kills its process and waits until the process table does not
	// contain it.
	r := fakeRuntime(t, fmt.Sprintf("root=$2; kill -9 %d; for i in $(seq 500); do kill -0 %d 2>/dev/null || { rm $root/c_*.state; exit 0; }; sleep 0.01; done; echo still there >&2; exit 1", helper.Process.Pid, helper.Process.Pid))
	r.Guest = true
	if err := os.MkdirAll(r.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	state := fmt.Sprintf(`{"id":"c","goferPid":%d,"sandbox":{"id":"guest","pid":%d}}`, helper.Process.Pid, os.Getpid())
	for name, content := range map[string]string{"c_sandbox:guest.state": state, "c_sandbox:guest.lock": "", "d_sandbox:guest.lock": "", "e_sandbox:guest.lock": "", "e_sandbox:guest.state": "{}", "f_sandbox:other.lock": ""} {
		if err := os.WriteFile(filepath.Join(r.Root, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Delete(t.Context(), "c", true); err != nil {
		t.Error(err)
	}
	files, err := filepath.Glob(r.Root + "/*.lock") // locks of existing containers and of other guests
	if err != nil || len(files) != 2 || filepath.Base(files[0]) != "e_sandbox:guest.lock" || filepath.Base(files[1]) != "f_sandbox:other.lock" {
		t.Errorf("locks: %v, %v", files, err)
	}
}

// TestExecInGuestTimeout checks that after the timeout, a command in a guest is killed in the guest
// with its descendants, and the files of the exec are removed.
func TestExecInGuestTimeout(t *testing.T) {
	dir := t.TempDir()
	killed := filepath.Join(t.TempDir(), "killed")
	r := fakeRuntime(t, `
while [ $# -gt 0 ]; do case $1 in
  --pid-file) pid=$2;; --internal-pid-file) inner=$2;; --process) process=$2;;
  ps) test -e `+killed+` || printf 'UID PID PPID\n0 41 0\n0 42 41\n'; exit 0;;
  kill) echo "$@" >>`+killed+`; exit 0;;
esac; shift; done
grep -q '"args":\["x"\]' $process || exit 1
echo 41 >$inner
sleep 1000 </dev/null >/dev/null 2>&1 &
echo $! >$pid`)
	r.Guest = true
	if err := AdoptOrphans(); err != nil {
		t.Fatal(err)
	}
	_, err := r.Exec(t.Context(), ExecInput{ID: "c", Process: &specs.Process{Args: []string{"x"}}, Timeout: 300 * time.Millisecond, Dir: dir})
	if err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Errorf("got %v", err)
	}
	b, err := os.ReadFile(killed)
	if err != nil || !strings.Contains(string(b), "kill --pid 41 c 9") || !strings.Contains(string(b), "kill --pid 42 c 9") {
		t.Errorf("killed: %s, %v", b, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("files still exist: %v, %v", files, err)
	}
}
