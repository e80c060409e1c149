package sandbox

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakePlugins note what they are told, and refuse what they are made to.
type fakePlugins struct {
	refuse error
	stop   func(*Pod)

	mu     sync.Mutex
	events []string
}

func (f *fakePlugins) note(what string, p *Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, what+" "+p.Config.GetMetadata().GetName())
}

func (f *fakePlugins) seen() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.events, ",")
}

func (f *fakePlugins) Run(_ context.Context, p *Pod) error { f.note("run", p); return f.refuse }
func (f *fakePlugins) Published(p *Pod)                    { f.note("shown", p) }
func (f *fakePlugins) Update(_ context.Context, p *Pod, _, _ *cri.LinuxContainerResources) error {
	f.note("update", p)
	return f.refuse
}
func (f *fakePlugins) Updated(_ context.Context, p *Pod) { f.note("updated", p) }
func (f *fakePlugins) Stopped(_ context.Context, p *Pod) {
	f.note("stopped", p)
	if f.stop != nil {
		f.stop(p)
	}
}
func (f *fakePlugins) Removed(_ context.Context, p *Pod) { f.note("removed", p) }

// A pod that plugins refuse leaves nothing: no address, no namespace, no file.
func TestPluginsRefuseAPod(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	f := &fakePlugins{refuse: errors.New("never")}
	m.cfg.Plugins = f
	if _, err := m.RunPod(t.Context(), podConfig("p"), ""); err == nil || !strings.Contains(err.Error(), "never") {
		t.Fatalf("got %v", err)
	}
	if adds, dels := plugin.calls("ADD"), plugin.calls("DEL"); adds != 1 || dels != 1 {
		t.Errorf("%d ADD, %d DEL", adds, dels)
	}
	if got := f.seen(); got != "run p,stopped p,removed p" {
		t.Errorf("told: %s", got)
	}
	b.checkNothingLeft()
	f.refuse, f.events = nil, nil
	p := mustRun(t, m, podConfig("p"))
	f.refuse = errors.New("never")
	if err := m.UpdateResources(t.Context(), p.ID, nil, &cri.LinuxContainerResources{CpuShares: 9}); err == nil {
		t.Error("an update that plugins refuse is done")
	}
	if now, err := m.Get(p.ID); err != nil || now.Resources != nil {
		t.Errorf("%v, %v", now.Resources, err)
	}
	mustRemove(t, m, p.ID)
	if got := f.seen(); got != "run p,shown p,update p,stopped p,removed p" {
		t.Errorf("told: %s", got)
	}
}

// Where the pod that was refused cannot be taken down at once it is visible, and
// plugins hear of each step once, with the network still there at its stop.
func TestRefusedPodThatCannotBeTakenDown(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	var dels int
	f := &fakePlugins{refuse: errors.New("never"), stop: func(*Pod) { dels = plugin.calls("DEL") }}
	m.cfg.Plugins = f
	plugin.fail("DEL", 1)
	if _, err := m.RunPod(t.Context(), podConfig("p"), ""); err == nil {
		t.Fatal("no error")
	}
	if dels != 0 {
		t.Errorf("plugins heard of the stop after %d DEL", dels)
	}
	for _, p := range m.List() { // unless the background was faster
		mustRemove(t, m, p.ID)
	}
	eventually(t, "the pod's end", func() bool { return len(m.List()) == 0 })
	if got := f.seen(); got != "run p,stopped p,removed p" {
		t.Errorf("told: %s", got)
	}
}
