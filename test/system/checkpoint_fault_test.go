package system

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
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

// TestCheckpointDeadline ends checkpoints: by a client that leaves at each step, by the timeout of the request, by the
// deadline of the call, and by a stop of the container.
func TestCheckpointDeadline(t *testing.T) {
	k := newStepper(t, "ckptend", "10.250.1.0/24")
	id, dir := k.counter(t, "count"), t.TempDir()
	location := filepath.Join(dir, "a.tar")
	ended := func() {
		t.Helper()
		waitFor(t, "the end of the checkpoint", func() bool {
			left, _ := os.ReadDir(filepath.Join(k.Dir, "root", "checkpoints"))
			return len(left) == 0
		})
		if left := k.criu.dumps(t, ""); len(left) > 0 {
			t.Errorf("the processes %v of the dump are left", left)
		}
		k.counts(t, k.pod, id, "count")
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c, resume := k.stopAt(t, s, dir, func() error {
				_, err := k.RuntimeService.CheckpointContainer(ctx, &cri.CheckpointContainerRequest{ContainerId: id, Location: location})
				return err
			})
			cancel()
			err := c.wait() // the client does not wait for the end of its call
			resume()
			if status.Code(err) != codes.Canceled {
				t.Errorf("got %v, want Canceled", err)
			}
			ended()
			if s.name == "archive" {
				_ = os.Remove(location) // the daemon can complete the archive before it receives the cancellation
			}
			k.noTraces(t, dir)
		})
	}
	k.survives(t, k.pod, id, "count", dir)

	t.Run("timeout of the request", func(t *testing.T) {
		c, pid := k.holdDump(t, func() error {
			_, err := k.RuntimeService.CheckpointContainer(t.Context(), &cri.CheckpointContainerRequest{ContainerId: id, Location: location, Timeout: harness.PatienceSeconds(1)})
			return err
		})
		waitRemoved(t, filepath.Join(dir, ".criserver-checkpoint-*", "01", "images"))
		_ = syscall.Kill(pid, syscall.SIGCONT)
		if err := c.wait(); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v, want DeadlineExceeded", err)
		}
		ended()
		k.noTraces(t, dir)
	})
	t.Run("deadline of a pod", func(t *testing.T) {
		pod := t.TempDir()
		c, pid := k.holdDump(t, func() error { return k.checkpointPod(t, k.pod, pod, harness.Patience(time.Second), id) })
		waitRemoved(t, filepath.Join(pod, ".partial", "01", "images"))
		_ = syscall.Kill(pid, syscall.SIGCONT)
		if err := c.wait(); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v, want DeadlineExceeded", err)
		}
		ended()
		k.noTraces(t, pod)
	})
	t.Run("stop of the container", func(t *testing.T) {
		c, pid := k.holdDump(t, func() error { return k.checkpoint(t, id, location, time.Minute) })
		stopped := goCall(func() error {
			_, err := k.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id, Timeout: 1})
			return err
		})
		waitRemoved(t, filepath.Join(dir, ".criserver-checkpoint-*", "01", "images"))
		_ = syscall.Kill(pid, syscall.SIGCONT)
		if err := c.wait(); status.Code(err) != codes.Aborted {
			t.Errorf("checkpoint: got %v, want Aborted", err)
		}
		if err := stopped.wait(); err != nil {
			t.Errorf("stop during the checkpoint: %v", err)
		}
		k.noTraces(t, dir)
	})
}

// waitRemoved waits until no file matches the pattern.
func waitRemoved(t *testing.T, pattern string) {
	t.Helper()
	waitFor(t, "the removal of "+pattern, func() bool {
		found, err := filepath.Glob(pattern)
		return err == nil && len(found) == 0
	})
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
