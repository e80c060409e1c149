package container

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/bundle"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakePlugins record their calls. Their fields set their results.
type fakePlugins struct {
	create func(*specs.Spec) (*bundle.Adjustment, error)
	start  func() error
	onStop func(context.Context)
	others func(context.Context)

	mu     sync.Mutex
	events []string
}

func (f *fakePlugins) record(event string, s *Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, event+" "+s.Config.GetMetadata().GetName())
}

func (f *fakePlugins) calls() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.events, ",")
}

func (f *fakePlugins) Create(_ context.Context, s *Snapshot, spec *specs.Spec) (*bundle.Adjustment, error) {
	f.record("create", s)
	if f.create != nil {
		return f.create(spec)
	}
	return nil, nil
}
func (f *fakePlugins) Created(_ context.Context, s *Snapshot) { f.record("created", s) }
func (f *fakePlugins) Start(_ context.Context, s *Snapshot) error {
	f.record("start", s)
	if f.start != nil {
		return f.start()
	}
	return nil
}
func (f *fakePlugins) Started(_ context.Context, s *Snapshot) { f.record("started", s) }
func (f *fakePlugins) Update(_ context.Context, s *Snapshot, l Limits) (Limits, func(context.Context), error) {
	f.record("update", s)
	return l, f.others, nil
}
func (f *fakePlugins) Updated(_ context.Context, s *Snapshot) { f.record("updated", s) }
func (f *fakePlugins) Stopped(ctx context.Context, s *Snapshot) func(context.Context) {
	f.record("stopped", s)
	if f.onStop != nil {
		f.onStop(ctx)
	}
	return f.others
}

func (f *fakePlugins) Removed(_ context.Context, s *Snapshot) {
	if spec, err := s.Spec(); err != nil || spec.Process == nil {
		f.record("removed without config", s)
		return
	}
	f.record("removed", s)
}
func (f *fakePlugins) HasPlugins() bool { return true }

func withPlugins(f *fakePlugins) func(*Config) { return func(c *Config) { c.Plugins = f } }

func TestPluginRefusesCreation(t *testing.T) {
	b := newTestBed(t)
	f := &fakePlugins{create: func(*specs.Spec) (*bundle.Adjustment, error) { return nil, errors.New("never") }}
	m, _ := b.manager(withPlugins(f))
	c := shell("c", "sleep 1000")
	if _, err := m.Create(t.Context(), "pod", c, nil); err == nil || !strings.Contains(err.Error(), "never") {
		t.Errorf("got %v", err)
	}
	if len(m.List()) != 0 || b.images.mounted() != 0 {
		t.Errorf("containers %v and %d mounts are left", m.List(), b.images.mounted())
	}
	if got := f.calls(); got != "create c,removed c" {
		t.Errorf("calls: %s", got)
	}
	f.create = nil
	id := b.create(m, c) // another container can have the name
	if err := m.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
}

// TestPluginChangesAreChecked checks that the rules of requests apply to the changes of plugins.
func TestPluginChangesAreChecked(t *testing.T) {
	b := newTestBed(t)
	f := &fakePlugins{}
	m, _ := b.manager(withPlugins(f))
	for field, a := range map[string]bundle.Adjustment{
		"cpu_shares":    {CRI: &cri.LinuxContainerResources{CpuShares: 1}},
		"unified":       {CRI: &cri.LinuxContainerResources{Unified: map[string]string{"cgroup.procs": "1"}}},
		"blockio_class": {BlockIOClass: new("x")},
		"rdt_class":     {RDTClass: new("x")},
	} {
		f.create = func(*specs.Spec) (*bundle.Adjustment, error) { return &a, nil }
		if _, err := m.Create(t.Context(), "pod", shell("c", "true"), nil); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
	f.create = func(s *specs.Spec) (*bundle.Adjustment, error) {
		s.Linux.CgroupsPath = "/a/../b"
		return &bundle.Adjustment{}, nil
	}
	if _, err := m.Create(t.Context(), "pod", shell("c", "true"), nil); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "cgroups_path") {
		t.Errorf("got %v", err)
	}
}

func TestPluginRefusesStart(t *testing.T) {
	b := newTestBed(t)
	f := &fakePlugins{start: func() error { return errors.New("never") }}
	m, _ := b.manager(withPlugins(f))
	id := b.create(m, shell("c", "sleep 1000"))
	if err := m.Start(t.Context(), id); err == nil || !strings.Contains(err.Error(), "never") {
		t.Errorf("got %v", err)
	}
	s := b.waitExit(m, id)
	if s.Reason != ReasonContainerCannotRun || s.Message != "never" {
		t.Errorf("got %s, %q", s.Reason, s.Message)
	}
	if err := m.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
	if got := f.calls(); got != "create c,created c,start c,stopped c,removed c" {
		t.Errorf("calls: %s", got)
	}
}

// TestExitNotification checks that plugins are notified of an exit once, and after the
// start.
func TestExitNotification(t *testing.T) {
	b := newTestBed(t)
	f := &fakePlugins{}
	m, _ := b.manager(withPlugins(f))
	for range 5 {
		f.events = nil
		id := b.run(m, shell("c", "true"))
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := m.Stop(t.Context(), id, time.Second); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if err := m.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
		if got := f.calls(); got != "create c,created c,start c,started c,stopped c,removed c" {
			t.Errorf("calls: %s", got)
		}
	}
}

// TestSlowPlugins blocks the notification of an exit. The container must be visible as
// exited, and a stop must not wait longer than its context.
func TestSlowPlugins(t *testing.T) {
	b := newTestBed(t)
	reached, release := make(chan struct{}), make(chan struct{})
	f := &fakePlugins{onStop: func(context.Context) { close(reached); <-release }}
	m, _ := b.manager(withPlugins(f))
	id, other := b.run(m, shell("c", "sleep 1000")), b.run(m, shell("other", "sleep 1000"))
	stopped := make(chan error, 1)
	go func() { stopped <- m.Stop(t.Context(), id, 0) }()
	<-reached
	if s, err := m.Get(id); err != nil || s.State != Exited || len(m.List()) != 2 {
		t.Errorf("%v, %v, %v", s, err, m.List())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Stop(ctx, id, 0); err != nil {
		t.Errorf("second stop: %v", err)
	}
	// SetLimits for another container does not wait for the lock of this container.
	if err := m.SetLimits(t.Context(), other, Limits{CRI: &cri.LinuxContainerResources{CpuShares: 99}}); err != nil {
		t.Error(err)
	}
	close(release)
	f.onStop = nil
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	for _, id := range []string{id, other} {
		if err := m.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// TestUpdatesOfOtherContainersHoldNoLock checks that the updates of other containers run
// without the operation lock of the container.
func TestUpdatesOfOtherContainersHoldNoLock(t *testing.T) {
	b := newTestBed(t)
	f := &fakePlugins{}
	m, _ := b.manager(withPlugins(f))
	id := b.run(m, shell("c", "sleep 1000"))
	results := make(chan error, 2)
	f.others = func(ctx context.Context) { // the worst case: the container itself
		results <- m.SetLimits(ctx, id, Limits{CRI: &cri.LinuxContainerResources{CpuShares: 77}, Extra: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(44))}}})
	}
	if err := m.UpdateResources(t.Context(), id, &cri.LinuxContainerResources{CpuShares: 66}); err != nil {
		t.Error(err)
	}
	if err := <-results; err != nil {
		t.Error(err)
	}
	s, err := m.Get(id)
	if err != nil || s.Resources.GetCpuShares() != 77 || *s.Extra.Pids.Limit != 44 {
		t.Errorf("%v, %v, %v", s.Resources, s.Extra, err)
	}
	if err := m.Stop(t.Context(), id, 0); err != nil {
		t.Error(err)
	}
	if err := <-results; !errdefs.IsFailedPrecondition(err) { // the container has exited
		t.Errorf("limits of an exited container: %v", err)
	}
	if err := m.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
	if !slices.Contains(strings.Split(f.calls(), ","), "updated c") {
		t.Errorf("calls: %s", f.calls())
	}
}
