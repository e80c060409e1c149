package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/criserver/criserver/sandbox/namespace"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPause(t *testing.T) {
	b, _ := fakeBed(t)
	b.cfg.PausePath = buildBinary(t, "../cmd/conmon")
	m := b.start()
	shared := func(name string) *cri.PodSandboxConfig {
		c := podConfig(name)
		c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
		return c
	}
	p, q := mustRun(t, m, shared("a")), mustRun(t, m, shared("b"))
	proc := "/proc/" + strconv.Itoa(p.PausePID)
	if !namespace.Pinned(p.Namespaces.PID) {
		t.Error("the PID namespace is not pinned")
	}
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65535\t65535\t65535\t65535", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the status of the pause does not have %q", want)
		}
	}
	// The pause must not give access to files of the host.
	if entries, err := os.ReadDir(proc + "/root"); err != nil || len(entries) != 1 || entries[0].Name() != "pause" {
		t.Errorf("root directory of the pause: got %v, %v", entries, err)
	}
	if f, err := os.OpenFile(proc+"/root/pause", os.O_WRONLY, 0); err == nil {
		t.Error("the binary of the pause can be opened for writing", f.Close())
	}
	if b.cgroups.pids[pauseCgroup(&record{ID: p.ID, CgroupParent: p.CgroupParent})] != p.PausePID {
		t.Errorf("the pause is not in its cgroup: got %v", b.cgroups.pids)
	}

	b.halt()
	m = b.start()
	for _, pod := range []*Pod{p, q} {
		if got, err := m.Get(pod.ID); err != nil || !got.Ready || got.PausePID != pod.PausePID {
			t.Fatalf("after the restart: got %+v, %v", got, err)
		}
	}
	killed, err := os.FindProcess(q.PausePID)
	if err == nil {
		err = killed.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "not ready after the death of the pause", func() bool { got, _ := m.Get(q.ID); return !got.Ready })
	mustRemove(t, m, p.ID, q.ID)
	if _, err := os.Stat(proc); err == nil {
		t.Error("the pause still exists")
	}
}

// TestPauseWithoutRecord starts a pause and ends the daemon before it records the pause.
func TestPauseWithoutRecord(t *testing.T) {
	b, _ := fakeBed(t)
	b.cfg.PausePath = buildBinary(t, "../cmd/conmon")
	m := b.halted()
	c := podConfig("a")
	c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	bd := &build{m: m, settings: m.settings.Load(), spec: mustParse(t, m, c), rec: &record{ID: strings.Repeat("cd", 32)}}
	if err := errors.Join(bd.begin(t.Context()), bd.files(t.Context()), bd.isolate(t.Context())); err != nil {
		t.Fatal(err)
	}
	ref := *bd.rec.Pause
	// The kernel may show the command line only after Start has returned.
	eventually(t, "command line of the pause", func() bool { _, found := namespace.FindPause(bd.rec.ID); return found })
	b.start()
	eventually(t, "removal of the leftovers", func() bool {
		_, err := os.Stat(filepath.Join(b.cfg.RunDir, "pods", bd.rec.ID))
		return os.IsNotExist(err)
	})
	if ref.Alive() {
		t.Error("the pause still runs")
	}
}
