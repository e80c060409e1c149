package system

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// saveCounter writes a checkpoint of a pod with one container that counts and has 100 MB of memory.
func (n *node) saveCounter(t *testing.T, name string) *saved {
	t.Helper()
	p := n.RunPod(t, podConfig(name))
	c := containerConfig(p, "count", busybox, "sh", "-c", largeCounter)
	id := n.RunContainer(t, p, c)
	waitFor(t, "the counter", func() bool { return len(logLines(t, p, "count")) > 3 })
	return n.save(t, p, []*cri.ContainerConfig{c}, id)
}

// continues checks that a restore succeeds, and that the container counts on.
func (n *node) continues(t *testing.T, s *saved) {
	t.Helper()
	r, ids := n.mustRestore(t, s)
	before := len(logLines(t, r, "count"))
	n.StartContainer(t, ids["count"])
	n.countsOn(t, r, before)
	n.RemovePod(t, r.ID)
	n.noRestoreLeft(t)
}

func (n *node) countsOn(t *testing.T, p *pod, before int) {
	t.Helper()
	waitFor(t, "the counter", func() bool { return len(logLines(t, p, "count")) > before+3 })
	if lines := logLines(t, p, "count"); lines[before+2] == "3" {
		t.Error("the counter has begun again")
	}
}

// TestDaemonDiesDuringRestorePod kills the daemon at each step of RestorePod. The next daemon removes the incomplete
// pod, or keeps the complete pod, and a retry succeeds.
func TestDaemonDiesDuringRestorePod(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "rstdie", 249)
	s := n.saveCounter(t, "rstdie")
	reached := 0 // number of restores that had not ended before their step
	for _, step := range []struct {
		name, pattern string
		size          int64
	}{
		{"record", "run/restores/*.json", 0},
		{"pod", "run/pods/*", 0},
		{"container", "run/containers/*", 0},
		{"first image", "root/restore/*/*.img", 0},
		{"pages", "root/restore/*/pages-*.img", 1 << 20},
		{"config", "run/containers/*/config.json", 0},
	} {
		t.Run(step.name, func(t *testing.T) {
			done := make(chan struct{})
			var err error
			go func() {
				defer close(done)
				_, _, err = n.restore(t, s)
			}()
			if reaches(n.Dir, step.pattern, step.size, done) {
				reached++
			}
			n.Kill()
			<-done
			n.restart(t)
			waitFor(t, "the removal of the incomplete pod", func() bool {
				left, err := os.ReadDir(filepath.Join(n.Dir, "run", "restores"))
				return err == nil && len(left) == 0
			})
			pods, listErr := n.RuntimeService.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{})
			if listErr != nil {
				t.Fatal(listErr)
			}
			if err == nil && len(pods.GetItems()) != 1 {
				t.Errorf("%d pods after RestorePod has succeeded, want 1", len(pods.GetItems()))
			}
			for _, p := range pods.GetItems() { // the daemon died after the restore was complete
				n.RemovePod(t, p.GetId())
			}
			n.noRestoreLeft(t)
		})
	}
	if reached == 0 {
		t.Error("all restores ended before their steps")
	}
	n.continues(t, s)
}

// restorers returns the pids of the processes that restore a container: the OCI runtime and its children.
func restorers(t *testing.T, id string) (pids map[int]string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	pids = make(map[int]string)
	runtimes := make(map[string]bool)
	for _, file := range files {
		if b, _ := os.ReadFile(file); bytes.Contains(b, []byte("/"+id+"/criu-path:")) {
			runtimes[filepath.Base(filepath.Dir(file))] = true
		}
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || len(fields) < 2 || fields[0] == "Z" {
			continue
		}
		if runtimes[filepath.Base(dir)] || runtimes[fields[1]] {
			comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
			pids[pid] = strings.TrimSpace(string(comm))
		}
	}
	return pids
}

// logHas waits until a file has a text, or until done is closed.
func logHas(file, text string, done <-chan struct{}) bool {
	for {
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), text) {
			return true
		}
		select {
		case <-done:
			return false
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// TestRestoreSurvivesKills kills the daemon, CRIU, the OCI runtime and the monitor at each step of the start of a
// restored container. Nothing remains, and a retry succeeds.
func TestRestoreSurvivesKills(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "rstkill", 248)
	s := n.saveCounter(t, "rstkill")
	reached := 0 // number of starts that had not ended before their step
	kill := func(t *testing.T, id, name string) {
		for pid, comm := range restorers(t, id) {
			if strings.HasPrefix(comm, name) {
				_ = syscall.Kill(pid, syscall.SIGKILL) // the process may have exited
			}
		}
	}
	for _, victim := range []string{"daemon", "criu", "runtime", "monitor"} {
		// The texts are lines of the log of CRIU.
		for _, step := range []string{"", "Forking task", "mnt-v2", "Opening", "Restore finished"} {
			t.Run(victim+"/"+step, func(t *testing.T) {
				r, ids := n.mustRestore(t, s)
				id := ids["count"]
				before := len(logLines(t, r, "count"))
				done := make(chan struct{})
				var err error
				go func() {
					defer close(done)
					_, err = n.RuntimeService.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: id})
				}()
				if logHas(filepath.Join(n.Dir, "run", "containers", id, "restore.log"), step, done) {
					reached++
				}
				switch victim {
				case "daemon":
					n.Kill()
					n.restart(t)
				case "monitor":
					n.killMonitor(t, id)
				case "runtime":
					kill(t, id, "runc")
				default:
					kill(t, id, victim)
				}
				<-done
				n.checkKilledStart(t, r, id, victim, before, err)
				n.RemovePod(t, r.ID)
				n.noRestoreLeft(t)
				if left := restorers(t, id); len(left) > 0 {
					t.Errorf("processes after the removal: %v", left)
				}
			})
		}
	}
	if reached == 0 {
		t.Error("all starts ended before their steps")
	}
	n.continues(t, s)
}

// checkKilledStart checks the state of a container after a process was killed during the start. startErr is the result
// of StartContainer.
func (n *node) checkKilledStart(t *testing.T, p *pod, id, victim string, before int, startErr error) {
	t.Helper()
	if victim == "daemon" { // the monitor continues, and so does the next daemon
		waitFor(t, "the end of the start", func() bool { return n.ContainerStatus(t, id).GetState() == cri.ContainerState_CONTAINER_RUNNING })
		n.countsOn(t, p, before)
		return
	}
	state := n.ContainerStatus(t, id).GetState()
	switch {
	case startErr != nil && state != cri.ContainerState_CONTAINER_EXITED:
		t.Errorf("StartContainer has failed with %v, but the container is %s", startErr, state)
	case startErr == nil && victim != "monitor": // the process was killed after the restore
		n.countsOn(t, p, before)
	}
}

// TestRestoreDiskFull restores a pod while the disk of the process images is full, and again after it has space.
func TestRestoreDiskFull(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "rstfull", 248)
	s := n.saveCounter(t, "rstfull")
	dir := filepath.Join(n.Dir, "root", "restore")
	for _, size := range []string{"64k", "1m", "50m"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=700,size="+size); err != nil {
			t.Fatal(err)
		}
		_, _, err := n.restore(t, s)
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s: got %v, want ResourceExhausted", size, err)
		}
		n.noRestoreLeft(t)
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatal(fmt.Errorf("unmount %s: %w", dir, err))
		}
	}
	n.continues(t, s)
}

// reaches waits until a file of at least size bytes matches the pattern in dir, or until done is closed.
func reaches(dir, pattern string, size int64, done <-chan struct{}) bool {
	for {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, f := range found {
			if info, err := os.Stat(f); err == nil && info.Size() >= size {
				return true
			}
		}
		select {
		case <-done:
			return false
		case <-time.After(100 * time.Microsecond):
		}
	}
}
