package harness

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// testHierarchies are where the tests make cgroups: the first one that is mounted.
var testHierarchies = []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"}

// makeCgroup makes a cgroup with a process in it.
func makeCgroup(t *testing.T, name string) (dir string, process *exec.Cmd) {
	t.Helper()
	for _, hierarchy := range testHierarchies {
		if !isCgroup(hierarchy) {
			continue
		}
		dir = filepath.Join(hierarchy, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		process = exec.Command("sleep", "1000")
		start(t, process)
		t.Cleanup(func() {
			stop(process)
			_ = os.Remove(dir) // the test may have removed the cgroup
		})
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(process.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
		return dir, process
	}
	t.Skip("this machine mounts neither cgroup v2 nor the controller pids")
	return "", nil
}

func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(cmd) })
}

func stop(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// reaped waits in the background, so that killRun sees that the process has exited.
func reaped(cmd *exec.Cmd) <-chan error {
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return done
}

// TestRemoveDeadRuns removes a run whose process has released its lock, and no other.
func TestRemoveDeadRuns(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("cgroups need root")
	}
	t.Setenv("TMPDIR", t.TempDir())
	const prefix = "criharness"
	dead, deadLock, err := MakeRunDir(prefix)
	if err != nil {
		t.Fatal(err)
	}
	live, liveLock, err := MakeRunDir(prefix)
	if err != nil {
		t.Fatal(err)
	}
	defer liveLock.Close()
	unknown, err := os.MkdirTemp("", prefix)
	if err != nil {
		t.Fatal(err)
	}

	deadCgroup, contained := makeCgroup(t, filepath.Base(dead)+"-a")
	liveCgroup, liveProcess := makeCgroup(t, filepath.Base(live)+"-a")
	longerCgroup, longerProcess := makeCgroup(t, filepath.Base(dead)+"0-a")
	daemon, other := exec.Command("sleep", "1000"), exec.Command("sleep", "1000")
	daemon.Env = append(os.Environ(), dirVariable+"="+filepath.Join(dead, "a"))
	other.Env = append(os.Environ(), dirVariable+"="+dead+"0/a")
	start(t, daemon)
	start(t, other)

	if err := RemoveDeadRuns(prefix); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{dead, live, unknown, deadCgroup, liveCgroup, longerCgroup} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("while the run has the lock: %v", err)
		}
	}

	if err := deadLock.Close(); err != nil {
		t.Fatal(err)
	}
	ends := []<-chan error{reaped(contained), reaped(daemon)}
	if err := RemoveDeadRuns(prefix); err != nil {
		t.Fatal(err)
	}
	for _, end := range ends {
		<-end
	}
	for _, dir := range []string{dead, deadCgroup} {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of the dead run: got %v, want that it does not exist", dir, err)
		}
	}
	for _, dir := range []string{live, unknown, liveCgroup, longerCgroup} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("what does not belong to the dead run: %v", err)
		}
	}
	for _, process := range []*exec.Cmd{liveProcess, longerProcess, other} {
		if pid, err := unix.Wait4(process.Process.Pid, nil, unix.WNOHANG, nil); pid != 0 || err != nil {
			t.Errorf("process of another run: wait got %d, %v, want that the process runs", pid, err)
		}
	}
}
