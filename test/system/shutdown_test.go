package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// slowCreate is an OCI runtime that creates a file and then takes two seconds to create a
// container.
const slowCreate = `#!/bin/sh
case " $* " in *" create "*) touch %q; sleep 2 ;; esac
exec %q "$@"
`

// TestRequestsDuringShutdown stops the daemon while calls run that take less than the grace
// period. They must succeed, which needs the monitor, the watcher of processes and the
// watcher of exits.
func TestRequestsDuringShutdown(t *testing.T) {
	dir, err := os.MkdirTemp(suite.dir, "slow-runtime")
	if err != nil {
		t.Fatal(err)
	}
	script, creating := filepath.Join(dir, "slow"), filepath.Join(dir, "creating")
	if err := os.WriteFile(script, fmt.Appendf(nil, slowCreate, creating, filepath.Join(suite.bin, "runc")), 0o755); err != nil {
		t.Fatal(err)
	}
	n := newNodeWith(t, "ending", 211, fmt.Sprintf("[runtimes.slow]\npath = %q\n", script))
	p := n.RunPod(t, podConfig("quick"))
	stopping := n.run(t, p, "stopping", "sh", "-c", "trap 'echo signal; sleep 2; exit 5' TERM; echo up; while :; do sleep 0.1; done")
	n.logHas(t, p, "stopping", "up")
	slow := n.runPodFor(t, "slow", podConfig("slow"))
	if err := os.RemoveAll(creating); err != nil { // the trial of the runtime created the file
		t.Fatal(err)
	}

	stopped, created := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: stopping, Timeout: harness.PatienceSeconds(30)})
		stopped <- err
	}()
	n.logHas(t, p, "stopping", "signal")
	id := ""
	go func() {
		req := &cri.CreateContainerRequest{PodSandboxId: slow.ID, Config: containerConfig(slow, "made", busybox, "sleep", "1000"), SandboxConfig: slow.Config}
		r, err := n.RuntimeService.CreateContainer(t.Context(), req)
		id = r.GetContainerId()
		created <- err
	}()
	waitFor(t, "the runtime's create", func() bool { _, err := os.Stat(creating); return err == nil })
	if err := n.Stop(); err != nil {
		t.Errorf("stop the daemon: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("running stop: got error %v, want none", err)
	}
	if err := <-created; err != nil {
		t.Errorf("running creation: got error %v, want none", err)
	}
	n.restart(t)
	if s := n.WaitExited(t, stopping); s.GetExitCode() != 5 {
		t.Errorf("exit code of the stopped container: got %d, want 5", s.GetExitCode())
	}
	if s := n.ContainerStatus(t, id); s.GetState() != cri.ContainerState_CONTAINER_CREATED {
		t.Errorf("state of the created container: got %s, want created", s.GetState())
	}
}

// logHas waits until the log of a container contains a text.
func (n *node) logHas(t *testing.T, p *pod, name, text string) {
	t.Helper()
	file := filepath.Join(p.Config.GetLogDirectory(), name+".log")
	waitFor(t, fmt.Sprintf("%q in the log of %s", text, name), func() bool {
		b, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(b), text)
	})
}

// TestSignalsThatDoNotEndTheDaemon sends signals whose default action ends a process, and
// closes the read end of the daemon's log pipe.
func TestSignalsThatDoNotEndTheDaemon(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	n := makeNode("signals")
	n.Output = w
	read := make(chan struct{})
	go func() { // reads the first line and closes the pipe, like `head -1`
		defer close(read)
		b := make([]byte, 1)
		_, _ = r.Read(b)
		_ = r.Close()
	}()
	n.start(t)
	<-read
	pid := n.Pid()
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE} {
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // time for the effect of the signal
		if _, err := n.RuntimeService.Version(t.Context(), &cri.VersionRequest{}); err != nil {
			t.Fatalf("version after %s: got error %v, want none", sig, err)
		}
	}
	// Every call writes to the log.
	p := podConfig("after")
	p.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
	p.Hostname = ""
	made := n.RunPod(t, p)
	// Commands in containers do not inherit ignored signals. Signals that were ignored
	// when this test started are not considered.
	id := n.run(t, made, "c", "sleep", "1000")
	ignored, err := strconv.ParseUint(n.Exec(t, id, "sh", "-c", "sed -n 's/SigIgn:\\t//p' /proc/self/status"), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE} {
		if ignored&(1<<(sig-1)) != 0 {
			t.Errorf("signals that a command in a container ignores: got %s, want none", sig)
		}
	}
	// SIGUSR1 writes the stacks of the goroutines to a file, which the daemon keeps.
	stacks := filepath.Join(n.Dir, "run", "stacks")
	waitFor(t, "the stacks of SIGUSR1", func() bool { found, _ := filepath.Glob(filepath.Join(stacks, "*.txt")); return len(found) == 1 })
	if err := os.RemoveAll(stacks); err != nil {
		t.Fatal(err)
	}
}
