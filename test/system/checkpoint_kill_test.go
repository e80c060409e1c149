package system

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// mediumCounter counts in a process with 8 MB of memory, beside a second process and a new file of 8 MB.
const mediumCounter = `x=$(head -c 8000000 /dev/zero | tr '\0' x); echo "$x" >/tmp/x; sleep 1000 & ` + counter

// step is a moment of a checkpoint at which a test stops a process.
type step struct {
	name string
	// actor is the process that the test stops: "daemon", or "criu" for CRIU.
	actor   string
	pattern string // matches a file that the step creates, relative to the directory of the archive
	size    int64  // minimum size of the file in bytes
}

// steps are the steps of the checkpoint of a container.
var steps = []step{
	{"work directory", "daemon", ".criserver-checkpoint-*", 0},
	{"directory of images", "daemon", ".criserver-checkpoint-*/01/images", 0},
	{"start of CRIU", "criu", ".criserver-checkpoint-*/01/work/dump.log", 0},
	{"first image", "criu", ".criserver-checkpoint-*/01/images/*.img", 0},
	{"pages", "criu", ".criserver-checkpoint-*/01/images/pages-*.img", 1 << 20},
	{"changed files", "daemon", ".criserver-checkpoint-*/01/rootfs.tar", 1},
	{"archive", "daemon", ".criserver-checkpoint-*/archive.tar", 0},
}

// holdableCRIU is a wrapper of CRIU. While its file "hold" exists, each dump stops itself before it begins.
type holdableCRIU struct {
	dir string
}

func newHoldableCRIU(t *testing.T) *holdableCRIU {
	t.Helper()
	program := needCRIU(t)
	w := &holdableCRIU{dir: t.TempDir()}
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" != swrk ] || [ ! -e %s ] || kill -STOP $$\nexec %s \"$@\"\n", w.file(), program)
	if err := os.WriteFile(w.path(), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *holdableCRIU) path() string { return filepath.Join(w.dir, "criu") }
func (w *holdableCRIU) file() string { return filepath.Join(w.dir, "hold") }

// hold makes the next dumps stop.
func (w *holdableCRIU) hold(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(w.file(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *holdableCRIU) release(t *testing.T) {
	t.Helper()
	if err := os.Remove(w.file()); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// dumps returns the pids of the processes of dumps with this CRIU. The names of the processes begin with name.
func (w *holdableCRIU) dumps(t *testing.T, name string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, _ := os.ReadFile(file)
		comm, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "comm"))
		env := "\x00" + string(b)
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && strings.Contains(env, "\x00CRISERVER_CHECKPOINT=") && strings.Contains(env, "\x00PATH="+w.dir+":") &&
			strings.HasPrefix(string(comm), name) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// processState returns the state of a process in /proc/PID/stat, for example 'T' for a stopped process, or 0 if the
// process does not exist.
func processState(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := strings.LastIndexByte(string(b), ')')
	if err != nil || i < 0 || i+2 >= len(b) {
		return 0
	}
	return b[i+2]
}

// stop stops a process and returns when it is stopped. stop returns false if the process has ended.
func stop(pid int) bool {
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	for {
		switch processState(pid) {
		case 'T', 't':
			return true
		case 0, 'Z', 'X':
			return false
		}
	}
}

// stopAt runs a process for short times until the step is reached. The process is stopped then. stopAt returns false if
// the process or the call ends before the step.
func stopAt(pid int, dir string, s step, c *call) bool {
	for stop(pid) {
		found, _ := filepath.Glob(filepath.Join(dir, s.pattern))
		for _, f := range found {
			if info, err := os.Stat(f); err == nil && info.Size() >= s.size {
				return true
			}
		}
		_ = syscall.Kill(pid, syscall.SIGCONT)
		select {
		case <-c.done:
			return false
		case <-time.After(200 * time.Microsecond):
		}
	}
	return false
}

// stepper is a node with a pod, and with a CRIU that can be held.
type stepper struct {
	*node
	criu *holdableCRIU
	pod  *pod
}

func newStepper(t *testing.T, name, subnet string) *stepper {
	t.Helper()
	n, criu := makeNode(name), newHoldableCRIU(t)
	n.CRIU = criu.path()
	n.Network = n.Bridge("cs"+name, subnet)
	n.start(t)
	return &stepper{node: n, criu: criu, pod: n.RunPod(t, podConfig(name))}
}

// counter runs a container that counts.
func (k *stepper) counter(t *testing.T, name string) (id string) {
	t.Helper()
	id = k.run(t, k.pod, name, "sh", "-c", mediumCounter)
	waitFor(t, "the counter", func() bool { return len(logLines(t, k.pod, name)) > 3 })
	return id
}

// call is a running call of the CRI.
type call struct {
	done chan struct{}
	err  error // valid after done is closed
}

func goCall(f func() error) *call {
	c := &call{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = f()
	}()
	return c
}

func (c *call) wait() error {
	<-c.done
	return c.err
}

// attempts is how often a test tries to stop a checkpoint at a step. On a busy machine, the stopped process can run for
// longer than the step takes.
const attempts = 5

// stopAt begins a checkpoint whose archive will be in dir, and stops the checkpoint at a step. resume continues the
// checkpoint.
func (k *stepper) stopAt(t *testing.T, s step, dir string, checkpoint func() error) (c *call, resume func()) {
	t.Helper()
	for range attempts {
		var pid int
		if s.actor == "daemon" {
			pid = k.Pid()
			stop(pid)
			c = goCall(checkpoint)
			if !stopAt(pid, dir, s, c) {
				pid = 0
			}
		} else {
			c, pid = k.stopCRIUAt(t, s, dir, checkpoint)
		}
		if pid != 0 {
			return c, func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
		}
		if err := c.wait(); err != nil {
			t.Fatalf("the checkpoint ended before the step %q: %v", s.name, err)
		}
	}
	t.Fatalf("%d checkpoints have succeeded without a stop at the step %q", attempts, s.name)
	return nil, nil
}

// stopCRIUAt begins a checkpoint and returns the pid of the CRIU that is stopped at a step, or 0.
func (k *stepper) stopCRIUAt(t *testing.T, s step, dir string, checkpoint func() error) (c *call, pid int) {
	t.Helper()
	k.criu.hold(t)
	defer k.criu.release(t)
	c = goCall(checkpoint)
	// The runtime runs CRIU several times. All runs except the dump end before the step.
	for pid = k.heldDump(t, c); pid != 0 && !stopAt(pid, dir, s, c); {
		pid = k.heldDump(t, c)
	}
	return c, pid
}

// holdDump begins a checkpoint and returns the pid of its first CRIU, which is stopped.
func (k *stepper) holdDump(t *testing.T, checkpoint func() error) (c *call, pid int) {
	t.Helper()
	k.criu.hold(t)
	defer k.criu.release(t)
	c = goCall(checkpoint)
	if pid = k.heldDump(t, c); pid == 0 {
		t.Fatalf("the checkpoint ended before CRIU: %v", c.wait())
	}
	return c, pid
}

// heldDump waits for a stopped CRIU and returns its pid. heldDump returns 0 if the checkpoint has ended.
func (k *stepper) heldDump(t *testing.T, c *call) (pid int) {
	t.Helper()
	waitFor(t, "the stopped CRIU", func() bool {
		select {
		case <-c.done:
			pid = 0
			return true
		default:
		}
		for _, pid = range k.criu.dumps(t, "criu") {
			if processState(pid) == 'T' {
				return true
			}
		}
		return false
	})
	return pid
}

// survives checks that the container counts on, that nothing is left, and that a retry succeeds.
func (n *node) survives(t *testing.T, p *pod, id, name, dir string) {
	t.Helper()
	n.counts(t, p, id, name)
	n.noTraces(t, dir)
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

// survivesSeized is survives for a container whose processes CRIU had seized when CRIU was killed. A process in which
// CRIU ran code at that moment exits by SIGTRAP or hangs. The container can be stopped then and leaves no files.
func (k *stepper) survivesSeized(t *testing.T, id, name, dir string) {
	t.Helper()
	before := len(logLines(t, k.pod, name))
	continues := func() bool { return len(logLines(t, k.pod, name)) > before+3 }
	running := func() bool { return k.ContainerStatus(t, id).GetState() == cri.ContainerState_CONTAINER_RUNNING }
	for end := time.Now().Add(harness.Patience(10 * time.Second)); !continues() && running() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if continues() {
		k.survives(t, k.pod, id, name, dir)
		return
	}
	k.noTraces(t, dir)
	if running() {
		t.Log("the counter hangs")
		if got := k.cgroupFile(t, id, "freezer/freezer.state", "cgroup.freeze"); got != "THAWED" && got != "0" {
			t.Errorf("freezer of the container: got %q, want a thawed container", got)
		}
		if _, err := k.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id}); err != nil {
			t.Errorf("stop the container: %v", err)
		}
	} else if s := k.ContainerStatus(t, id); s.GetExitCode() != 128+int32(syscall.SIGTRAP) {
		t.Errorf("the counter exited with %d, want SIGTRAP", s.GetExitCode())
	}
}

func (k *stepper) killAll(t *testing.T, name string) {
	t.Helper()
	pids := k.criu.dumps(t, name)
	if len(pids) == 0 {
		t.Fatalf("no process %s of a dump runs", name)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
	}
}

// killAtSteps kills a victim at each step of a checkpoint at which the victim runs.
func (k *stepper) killAtSteps(t *testing.T, victim string) {
	for i, s := range steps {
		if s.actor == "daemon" && (victim == "criu" || victim == "runtime") {
			continue
		}
		t.Run(s.name, func(t *testing.T) { k.kill(t, victim, fmt.Sprintf("%s%d", victim, i), s) })
	}
}

func TestCheckpointSurvivesKilledDaemon(t *testing.T) {
	newStepper(t, "ckptkilld", "10.250.0.0/24").killAtSteps(t, "daemon")
}

func TestCheckpointSurvivesKilledCRIU(t *testing.T) {
	newStepper(t, "ckptkillc", "10.250.2.0/24").killAtSteps(t, "criu")
}

func TestCheckpointSurvivesKilledRuntime(t *testing.T) {
	newStepper(t, "ckptkillr", "10.250.3.0/24").killAtSteps(t, "runtime")
}

func TestCheckpointSurvivesKilledMonitor(t *testing.T) {
	newStepper(t, "ckptkillm", "10.250.4.0/24").killAtSteps(t, "monitor")
}

// kill kills the victim at a step of a checkpoint, and checks the container, the files and a retry.
func (k *stepper) kill(t *testing.T, victim, name string, s step) {
	id, dir := k.counter(t, name), t.TempDir()
	c, resume := k.stopAt(t, s, dir, func() error { return k.checkpoint(t, id, filepath.Join(dir, "a.tar"), time.Minute) })
	switch victim {
	case "daemon":
		k.Kill()
	case "criu":
		k.killAll(t, "criu")
	case "runtime":
		k.killAll(t, "runc")
	case "monitor":
		k.killMonitor(t, id)
	}
	resume()
	err := c.wait()
	if victim == "monitor" {
		// Without a monitor no process reads the output, so the container ends with its next line.
		if err != nil {
			t.Errorf("checkpoint without a monitor: %v", err)
		}
		k.noTraces(t, dir, "a.tar")
		return
	}
	want := codes.Unknown
	if victim == "daemon" {
		want = codes.Unavailable
		k.restart(t)
	}
	seized := victim == "criu" && s.name != "start of CRIU"
	exited := seized && status.Code(err) == codes.FailedPrecondition && strings.Contains(err.Error(), "has exited")
	if status.Code(err) != want && !exited {
		t.Errorf("checkpoint without %s: got %v, want %s", victim, err, want)
	}
	if seized {
		k.survivesSeized(t, id, name, dir)
	} else {
		k.survives(t, k.pod, id, name, dir)
	}
	if left := k.criu.dumps(t, ""); len(left) > 0 {
		t.Errorf("the processes %v of the dump are left", left)
	}
	if _, err := k.RuntimeService.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
}
