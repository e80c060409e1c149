package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// largeCounter counts, and has a process with 100 MB of memory, so that a dump takes a while.
const largeCounter = `awk 'BEGIN { s = sprintf("%100000000s", "x"); while (1) system("sleep 1") }' & sleep 2; ` + counter

// dumps returns the pids of the processes of dumps whose name begins with name.
func dumps(t *testing.T, name string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, _ := os.ReadFile(file)
		comm, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "comm"))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && strings.Contains("\x00"+string(b), "\x00CRISERVER_CHECKPOINT=") && strings.HasPrefix(string(comm), name) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// steps are the steps of a checkpoint of a container whose temporary files are below dir.
var steps = []struct {
	name    string
	pattern string // matches a file that the step creates
	size    int64  // minimum size of the file in bytes
}{
	{"work directory", ".criserver-checkpoint-*", 0},
	{"dump", ".criserver-checkpoint-*/01/images", 0},
	{"first image", ".criserver-checkpoint-*/01/images/*.img", 0},
	{"pages", ".criserver-checkpoint-*/01/images/pages-*.img", 1 << 20},
	{"files", ".criserver-checkpoint-*/01/rootfs.tar", 0},
	{"archive", ".criserver-checkpoint-*/archive.tar", 0},
}

// reaches waits until a step is reached, or until done is closed.
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

// survives checks that the container counts on, that nothing is left, and that a retry succeeds.
func (n *node) survives(t *testing.T, p *pod, id, name, dir string) {
	t.Helper()
	n.counts(t, p, id, name)
	n.noTraces(t, dir)
	waitFor(t, "the end of the processes of the dump", func() bool { return len(dumps(t, "")) == 0 })
	location := filepath.Join(dir, "retry.tar")
	if err := n.checkpoint(t, id, location, time.Minute); err != nil {
		t.Fatalf("retry: %v", err)
	}
	n.noTraces(t, dir, "retry.tar")
	n.counts(t, p, id, name)
	if err := os.Remove(location); err != nil {
		t.Fatal(err)
	}
}

// TestCheckpointSurvivesKills kills the daemon, CRIU, the OCI runtime and the monitor at each step of a checkpoint.
func TestCheckpointSurvivesKills(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "ckptkill", 238)
	p := n.RunPod(t, podConfig("ckptkill"))
	for victim, kill := range map[string]func(id string){
		"daemon":  func(string) { n.Kill() },
		"criu":    func(string) { killAll(t, "criu") },
		"runtime": func(string) { killAll(t, "runc") },
		"monitor": func(id string) { n.killMonitor(t, id) },
	} {
		for i, step := range steps {
			t.Run(victim+"/"+step.name, func(t *testing.T) {
				name := fmt.Sprintf("%s%d", victim, i)
				id := n.run(t, p, name, "sh", "-c", largeCounter)
				waitFor(t, "the counter", func() bool { return len(logLines(t, p, name)) > 3 })
				dir := t.TempDir()
				done := make(chan struct{})
				var err error
				go func() {
					defer close(done)
					err = n.checkpoint(t, id, filepath.Join(dir, "a.tar"), time.Minute)
				}()
				if !reaches(dir, step.pattern, step.size, done) {
					t.Logf("the checkpoint ended before the step: %v", err)
				}
				kill(id)
				<-done
				if err == nil {
					n.noTraces(t, dir, "a.tar")
					if err := os.Remove(filepath.Join(dir, "a.tar")); err != nil {
						t.Fatal(err)
					}
				}
				switch victim {
				case "daemon":
					n.restart(t)
				case "monitor":
					if err != nil {
						t.Errorf("checkpoint without a monitor: %v", err)
					}
					// Without a monitor no process reads the output, so the container ends with its next line.
					n.noTraces(t, dir)
					return
				}
				n.survives(t, p, id, name, dir)
				if _, err := n.RuntimeService.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: id}); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func killAll(t *testing.T, name string) {
	for _, pid := range dumps(t, name) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
	}
}

// TestCheckpointDeadline ends checkpoints at many moments: by the deadline of the call, by the timeout of the request,
// and by a stop of the container.
func TestCheckpointDeadline(t *testing.T) {
	real := needCRIU(t)
	// The wrapper delays dumps while the file "slow" exists.
	wrapper := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" != swrk ] || [ ! -e %s/slow ] || sleep 3\nexec %s \"$@\"\n", wrapper, real)
	if err := os.WriteFile(filepath.Join(wrapper, "criu"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	n := makeNode("ckptend")
	n.CRIU = filepath.Join(wrapper, "criu")
	n.Network = n.Bridge("csckptend", "10.238.0.0/16")
	n.start(t)
	p := n.RunPod(t, podConfig("ckptend"))
	id := n.run(t, p, "count", "sh", "-c", largeCounter)
	waitFor(t, "the counter", func() bool { return len(logLines(t, p, "count")) > 3 })
	dir := t.TempDir()
	for _, d := range []time.Duration{5, 20, 50, 100, 150, 200, 300, 400, 600, 900} {
		ctx, cancel := context.WithTimeout(t.Context(), d*time.Millisecond)
		_, err := n.RuntimeService.CheckpointContainer(ctx, &cri.CheckpointContainerRequest{ContainerId: id, Location: filepath.Join(dir, "a.tar")})
		cancel()
		t.Logf("%d ms: %v", d, err)
		if err != nil && status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("after %d ms: got %v, want DeadlineExceeded", d, err)
		}
		// The client does not wait for the end of its call.
		waitFor(t, "the end of the checkpoint", func() bool {
			left, _ := os.ReadDir(filepath.Join(n.Dir, "root", "checkpoints"))
			return len(left) == 0
		})
		_ = os.Remove(filepath.Join(dir, "a.tar"))
		n.noTraces(t, dir)
		n.counts(t, p, id, "count")
	}
	n.survives(t, p, id, "count", dir)

	slow := filepath.Join(wrapper, "slow")
	if err := os.WriteFile(slow, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := n.RuntimeService.CheckpointContainer(t.Context(), &cri.CheckpointContainerRequest{
		ContainerId: id, Location: filepath.Join(dir, "a.tar"), Timeout: 1,
	})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("timeout of the request: got %v, want DeadlineExceeded", err)
	}
	n.noTraces(t, dir)
	n.counts(t, p, id, "count")
	pod := t.TempDir()
	if err := n.checkpointPod(t, p, pod, time.Second, id); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("deadline of a pod: got %v, want DeadlineExceeded", err)
	}
	waitFor(t, "the end of the checkpoint", func() bool { return len(dumps(t, "")) == 0 })
	n.counts(t, p, id, "count")
	waitFor(t, "the removal of the files", func() bool {
		left, err := os.ReadDir(pod)
		return err == nil && len(left) == 0
	})

	var all sync.WaitGroup
	all.Go(func() { err = n.checkpoint(t, id, filepath.Join(dir, "a.tar"), time.Minute) })
	waitFor(t, "the dump", func() bool { return len(dumps(t, "")) > 0 })
	if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id, Timeout: 1}); err != nil {
		t.Errorf("stop during the checkpoint: %v", err)
	}
	all.Wait()
	if status.Code(err) != codes.Aborted {
		t.Errorf("checkpoint of a container that is stopped: got %v, want Aborted", err)
	}
	n.noTraces(t, dir)
}

// TestCheckpointDiskFull checks that a full disk leaves nothing.
func TestCheckpointDiskFull(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "ckptfull", 235)
	p := n.RunPod(t, podConfig("ckptfull"))
	id := n.run(t, p, "count", "sh", "-c", largeCounter)
	waitFor(t, "the counter", func() bool { return len(logLines(t, p, "count")) > 3 })
	dir := t.TempDir()
	for _, size := range []string{"64k", "1m", "20m", "103m"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=700,size="+size); err != nil {
			t.Fatal(err)
		}
		err := n.checkpoint(t, id, filepath.Join(dir, "a.tar"), time.Minute)
		t.Logf("%s: %v", size, err)
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s: got %v, want ResourceExhausted", size, err)
		}
		n.noTraces(t, dir)
		if size == "1m" {
			pod := filepath.Join(dir, "pod")
			if err := errors.Join(os.Mkdir(pod, 0o700), n.checkpointPod(t, p, pod, harness.Patience(time.Minute), id)); err == nil {
				t.Error("the checkpoint of the pod succeeds")
			}
			if left, err := os.ReadDir(pod); err != nil || len(left) > 0 {
				t.Errorf("the directory of the pod has %v, %v", left, err)
			}
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
		n.counts(t, p, id, "count")
	}
	n.survives(t, p, id, "count", dir)
}

// TestCheckpointRefusesState checks that the daemon refuses state that a checkpoint cannot contain, and accepts a
// terminal, a pipe and a deleted file.
func TestCheckpointRefusesState(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "ckptstate", 236)
	p := n.RunPod(t, podConfig("ckptstate"))
	dir := t.TempDir()
	location := filepath.Join(dir, "a.tar")
	for name, script := range map[string]string{
		"deleted file": "exec 5>/tmp/gone; rm /tmp/gone; " + counter,
		"pipe":         "sleep 1000 | cat & " + counter,
	} {
		t.Run(name, func(t *testing.T) {
			short := strings.ReplaceAll(name, " ", "")
			id := n.run(t, p, short, "sh", "-c", script)
			waitFor(t, "the counter", func() bool { return len(logLines(t, p, short)) > 3 })
			if err := n.checkpoint(t, id, location, time.Minute); err != nil {
				t.Error(err)
			}
			n.counts(t, p, id, short)
		})
	}
	t.Run("terminal", func(t *testing.T) {
		config := containerConfig(p, "tty", busybox, "sh", "-c", counter)
		config.Tty = true
		id := n.RunContainer(t, p, config)
		waitFor(t, "the counter", func() bool { return len(logLines(t, p, "tty")) > 3 }) // not the OCI runtime any more
		if err := n.checkpoint(t, id, location, time.Minute); err != nil {
			t.Error(err)
		}
		if s := n.ContainerStatus(t, id); s.GetState() != cri.ContainerState_CONTAINER_RUNNING {
			t.Errorf("the container is %s", s.GetState())
		}
	})
	if err := os.Remove(location); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	refused := func(id, says string) {
		t.Helper()
		err := n.checkpoint(t, id, location, time.Minute)
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want FailedPrecondition with %q", err, says)
		}
		n.noTraces(t, dir)
	}
	tcp := n.run(t, p, "tcp", "sh", "-c", "nc -l -p 7000 -e sleep 1000 & sleep 1; nc 127.0.0.1 7000 </dev/zero >/dev/null & sleep 1; "+counter)
	waitFor(t, "the counter", func() bool { return len(logLines(t, p, "tcp")) > 3 })
	refused(tcp, "tcp-established")
	n.counts(t, p, tcp, "tcp")

	makeSegment(t, filepath.Join(n.Dir, "run", "ns", p.ID, "ipc"))
	refused(tcp, "System V shared memory")
	n.counts(t, p, tcp, "tcp")
}

// makeSegment makes a System V shared memory segment in the IPC namespace pinned at path.
func makeSegment(t *testing.T, path string) {
	t.Helper()
	if err := harness.InNamespace(path, unix.CLONE_NEWIPC, func() error {
		_, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestCheckpointWithoutCRIU checks that the tests of the kubelet recognize the error of a node without CRIU.
func TestCheckpointWithoutCRIU(t *testing.T) {
	n := makeNode("ckptnone")
	n.CRIU = "/nowhere/criu"
	n.Network = n.Bridge("csckptnone", "10.237.0.0/16")
	n.start(t)
	p := n.RunPod(t, podConfig("ckptnone"))
	id := n.run(t, p, "c", "sleep", "1000")
	dir := t.TempDir()
	err := n.checkpoint(t, id, filepath.Join(dir, "a.tar"), time.Minute)
	want := "rpc error: code = Unimplemented desc = unknown method CheckpointContainer"
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "/nowhere/criu") {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := n.checkpointPod(t, p, dir, time.Minute, id); status.Code(err) != codes.Unimplemented {
		t.Errorf("pod: got %v, want Unimplemented", err)
	}
	n.noTraces(t, dir)
	st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{Verbose: true})
	if err != nil || !strings.Contains(st.GetInfo()["config"], `"noCheckpoints":"criu: stat /nowhere/criu`) {
		t.Errorf("status: got %s, %v", st.GetInfo()["config"], err)
	}
}
