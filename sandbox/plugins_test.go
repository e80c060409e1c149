package sandbox

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakePlugins records its calls. Run and Update return refuse.
type fakePlugins struct {
	refuse error
	onStop func(*Pod) // called by Stopped, or nil

	mu  sync.Mutex
	log []string
}

func (f *fakePlugins) record(call string, p *Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, call+" "+p.Config.GetMetadata().GetName())
}

func (f *fakePlugins) calls() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.log, ",")
}

func (f *fakePlugins) Run(_ context.Context, p *Pod) error { f.record("run", p); return f.refuse }
func (f *fakePlugins) Published(_ context.Context, p *Pod) { f.record("published", p) }
func (f *fakePlugins) Update(_ context.Context, p *Pod, _, _ *cri.LinuxContainerResources) error {
	f.record("update", p)
	return f.refuse
}
func (f *fakePlugins) Updated(_ context.Context, p *Pod) { f.record("updated", p) }
func (f *fakePlugins) Stopped(_ context.Context, p *Pod) {
	f.record("stopped", p)
	if f.onStop != nil {
		f.onStop(p)
	}
}
func (f *fakePlugins) Removed(_ context.Context, p *Pod) { f.record("removed", p) }

// TestPluginsRefusePod checks that a pod that NRI plugins refuse is rolled back, and that they can refuse an update.
func TestPluginsRefusePod(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	f := &fakePlugins{refuse: errors.New("never")}
	m.cfg.Plugins = f
	if _, err := m.RunPod(t.Context(), podConfig("p"), ""); err == nil || !strings.Contains(err.Error(), "never") {
		t.Fatalf("got error %v", err)
	}
	if adds, dels := plugin.calls("ADD"), plugin.calls("DEL"); adds != 1 || dels != 1 {
		t.Errorf("got %d ADD and %d DEL, want one of each", adds, dels)
	}
	if got := f.calls(); got != "run p,stopped p,removed p" {
		t.Errorf("got calls %s", got)
	}
	b.checkClean()
	f.refuse, f.log = nil, nil
	p := mustRun(t, m, podConfig("p"))
	f.refuse = errors.New("never")
	if err := m.UpdateResources(t.Context(), p.ID, nil, &cri.LinuxContainerResources{CpuShares: 9}); err == nil {
		t.Error("refused update: got no error")
	}
	if now, err := m.Get(p.ID); err != nil || now.Resources != nil {
		t.Errorf("refused update: got resources %v, %v", now.Resources, err)
	}
	mustRemove(t, m, p.ID)
	if got := f.calls(); got != "run p,published p,update p,stopped p,removed p" {
		t.Errorf("got calls %s", got)
	}
}

// TestRefusedPodWithFailedTeardown checks that NRI plugins are notified of each step once if the
// teardown of a refused pod is retried, and that the pod still has its network when Stopped is
// called.
func TestRefusedPodWithFailedTeardown(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	var dels int
	f := &fakePlugins{refuse: errors.New("never"), onStop: func(*Pod) { dels = plugin.calls("DEL") }}
	m.cfg.Plugins = f
	plugin.fail("DEL", 1)
	if _, err := m.RunPod(t.Context(), podConfig("p"), ""); err == nil {
		t.Fatal("got no error")
	}
	if dels != 0 {
		t.Errorf("Stopped was called after %d DEL", dels)
	}
	for _, p := range m.List() { // unless it was torn down in the background already
		mustRemove(t, m, p.ID)
	}
	eventually(t, "removal of the pod", func() bool { return len(m.List()) == 0 })
	if got := f.calls(); got != "run p,stopped p,removed p" {
		t.Errorf("got calls %s", got)
	}
}
