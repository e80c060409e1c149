package container

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/patience"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestStopEscalates(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("deaf", "trap '' TERM; echo up; while :; do sleep 1; done"))
	b.log("deaf", "up")
	long := make(chan error, 1)
	go func() { long <- m.Stop(context.Background(), id, time.Hour) }()
	time.Sleep(100 * time.Millisecond)
	// Other operations continue during the stop.
	if out, err := m.ExecSync(t.Context(), id, []string{"echo", "here"}, 0); err != nil || string(out.Stdout) != "here\n" {
		t.Errorf("exec during the stop: %q, %v", out.Stdout, err)
	}
	if s, err := m.Get(id); err != nil || s.State != Running {
		t.Errorf("%+v, %v", s, err)
	}
	// A second stop shortens the deadline of the first stop.
	if err := m.Stop(t.Context(), id, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-long:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience.For(10 * time.Second)):
		t.Fatal("the first stop has not returned")
	}
	if s, _ := m.Get(id); s.ExitCode != 137 {
		t.Errorf("%+v", s)
	}
}

func TestStopSignalOfImage(t *testing.T) {
	b := newTestBed(t)
	b.images.config.StopSignal = "SIGUSR1"
	m, _ := b.manager()
	id := b.run(m, shell("usr1", "trap 'exit 11' USR1; echo up; while :; do sleep 0.1; done"))
	b.log("usr1", "up")
	if err := m.Stop(t.Context(), id, patience.For(30*time.Second)); err != nil {
		t.Fatal(err)
	}
	if s, _ := m.Get(id); s.ExitCode != 11 {
		t.Errorf("%+v", s)
	}
}

func TestStopBeforeStart(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.create(m, shell("idle", "exit 0"))
	if err := m.Stop(t.Context(), id, time.Hour); err != nil {
		t.Fatal(err)
	}
	if s, _ := m.Get(id); s.State != Exited || !s.StartedAt.IsZero() || s.ExitCode == 0 {
		t.Errorf("%+v", s)
	}
	if err := m.Start(t.Context(), id); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("start: %v", err)
	}
}

// TestStopKillsAllInSharedPIDNamespace uses the PID namespace of the host, in which the exit
// of the first process does not end other processes.
func TestStopKillsAllInSharedPIDNamespace(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	c := shell("host", "setsid sleep 1000 & sleep 1000 & echo up; wait")
	c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
	id := b.run(m, c)
	b.log("host", "up")
	s, _ := m.Get(id)
	if pids, err := b.tree.Pids(s.CgroupPath); err != nil || len(pids) < 3 {
		t.Fatalf("%v, %v", pids, err)
	}
	if err := m.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if pids, err := b.tree.Pids(s.CgroupPath); err != nil || len(pids) != 0 {
		t.Errorf("processes are left: %v, %v", pids, err)
	}
}

func TestStopPodAndEvents(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	seen := make(chan cri.ContainerEventType, 100)
	cancel := m.Subscribe(func(e Event) { seen <- e.Type })
	defer cancel()
	for _, n := range []string{"a", "b", "c"} {
		b.run(m, shell(n, "sleep 1000"))
	}
	if err := m.StopPod(t.Context(), "pod"); err != nil {
		t.Fatal(err)
	}
	for _, s := range m.List() {
		if s.State != Exited {
			t.Errorf("%+v", s)
		}
	}
	if err := m.RemovePod(t.Context(), "pod"); err != nil {
		t.Fatal(err)
	}
	count := make(map[cri.ContainerEventType]int)
	late := time.After(patience.For(time.Minute))
	for range 12 {
		select {
		case e := <-seen:
			count[e]++
		case <-late:
			t.Fatalf("events are missing: %v", count)
		}
	}
	for e, n := range count {
		if n != 3 {
			t.Errorf("event %s occurred %d times", e, n)
		}
	}
}

// TestFailedRemovalIsVisible checks that a container is visible after a removal that failed,
// and that a later removal succeeds.
func TestFailedRemovalIsVisible(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("stuck", "exit 0"))
	b.waitExit(m, id)
	b.images.fail(errors.New("device is busy"))
	if err := m.Remove(t.Context(), id); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("remove: %v", err)
	}
	if s, err := m.Get(id); err != nil || s.State != Exited {
		t.Errorf("%+v, %v", s, err)
	}
	b.images.fail(nil)
	if err := m.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
}
