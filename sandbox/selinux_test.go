package sandbox

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeLabels allocates numbered labels. It records the labels of files instead of setting them,
// because the test may run on a machine without SELinux.
type fakeLabels struct {
	mu   sync.Mutex
	next int
	held []string
	file []string
	fail error
}

func (f *fakeLabels) Pod(*cri.SELinuxOption) (process, mount string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return "", "", f.fail
	}
	f.next++
	process = fmt.Sprint("p", f.next)
	f.held = append(f.held, process)
	return process, fmt.Sprint("m", f.next), nil
}

func (f *fakeLabels) Keep(process string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = append(f.held, process)
	return nil
}

func (f *fakeLabels) Release(process string, _ *cri.SELinuxOption) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = slices.DeleteFunc(f.held, func(s string) bool { return s == process })
}

func (f *fakeLabels) File(path, label string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.file = append(f.file, filepath.Base(path)+" "+label)
	return nil
}

func (f *fakeLabels) holds(want ...string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Equal(f.held, want)
}

// TestLabels checks that a pod has its labels from its creation to its removal, also if the daemon
// restarts in between. The pods use the IPC namespace of the host, because a kernel without SELinux
// refuses the label of a tmpfs.
func TestLabels(t *testing.T) {
	b, _ := fakeBed(t)
	f := &fakeLabels{}
	b.cfg.Labels = f
	m := b.start()
	request := func(name string) *cri.PodSandboxConfig {
		c := podConfig(name)
		c.Linux.SecurityContext.NamespaceOptions.Ipc = cri.NamespaceMode_NODE
		return c
	}
	a, other := mustRun(t, m, request("a")), mustRun(t, m, request("b"))
	if a.ProcessLabel != "p1" || a.MountLabel != "m1" || other.ProcessLabel != "p2" || !f.holds("p1", "p2") {
		t.Errorf("got labels %s, %s, %s; reserved %v", a.ProcessLabel, a.MountLabel, other.ProcessLabel, f.held)
	}
	for _, file := range []string{"hosts m1", "hostname m1", "resolv.conf m1"} {
		if !slices.Contains(f.file, file) {
			t.Errorf("file without a label: %s; got %q", file, f.file)
		}
	}
	if err := m.Stop(t.Context(), other.ID); err != nil {
		t.Fatal(err)
	}
	if !f.holds("p1", "p2") {
		t.Errorf("after a stop: got reserved labels %v", f.held)
	}
	mustRemove(t, m, other.ID)
	if !f.holds("p1") {
		t.Errorf("after a removal: got reserved labels %v", f.held)
	}
	b.halt()
	f = &fakeLabels{next: 7}
	b.cfg.Labels = f
	m = b.start()
	if got, err := m.Get(a.ID); err != nil || got.ProcessLabel != "p1" || got.MountLabel != "m1" || !f.holds("p1") {
		t.Errorf("after a restart: got %+v, %v; reserved labels %v", got, err, f.held)
	}
	mustRemove(t, m, a.ID)
	if !f.holds() {
		t.Errorf("after the last removal: got reserved labels %v", f.held)
	}
	f.fail = errdefs.ErrInvalidArgument
	if _, err := m.RunPod(t.Context(), request("c"), ""); !errdefs.IsInvalidArgument(err) || len(m.List()) > 0 {
		t.Errorf("failed allocation: got error %v", err)
	}
}

func TestLabelsAfterFailedADD(t *testing.T) {
	b, plugin := fakeBed(t)
	f := &fakeLabels{}
	b.cfg.Labels = f
	m := b.start()
	plugin.fail("ADD", 1)
	c := podConfig("a")
	c.Linux.SecurityContext.NamespaceOptions.Ipc = cri.NamespaceMode_NODE
	if _, err := m.RunPod(t.Context(), c, ""); err == nil {
		t.Fatal("got no error")
	}
	if !f.holds() {
		t.Errorf("got reserved labels %v, want none", f.held)
	}
}
