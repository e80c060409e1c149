package wipe

import (
	"context"
	"errors"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/sandbox"
)

// host records the calls of Run in order, and fails those in fail.
type host struct {
	mu    sync.Mutex // guards calls
	calls []string
	fail  map[string]error

	pods       []*sandbox.Pod
	containers []*container.Snapshot
	images     []image.Image
	monitors   []proc.Ref
	exited     bool // the monitors exit when Run watches them
}

func (h *host) call(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, name)
	return h.fail[name]
}

func (h *host) managers() Managers {
	return Managers{
		Pods: fakePods{h}, Containers: fakeContainers{h}, Images: fakeImages{h}, Cgroups: h, Watcher: h,
		Start: func() func() error {
			_ = h.call("start")
			return func() error { return h.call("end") }
		},
	}
}

func (*host) ProcessCgroup(int) (string, error) { return "/monitors", nil }
func (h *host) RemoveUnused(path string) error  { return h.call("remove cgroup " + path) }
func (h *host) Watch(_ proc.Ref, exited func(*os.File)) error {
	if h.exited {
		go exited(nil)
	}
	return h.fail["watch"]
}

type fakePods struct{ *host }

func (f fakePods) List() []*sandbox.Pod                      { return f.pods }
func (f fakePods) Remove(_ context.Context, id string) error { return f.call("remove pod " + id) }
func (f fakePods) RemoveNetworks(context.Context) error      { return f.call("remove networks") }

type fakeContainers struct{ *host }

func (f fakeContainers) List() []*container.Snapshot { return f.containers }
func (f fakeContainers) Monitors() []proc.Ref        { return f.monitors }
func (f fakeContainers) Stop(_ context.Context, id string, _ time.Duration) error {
	return f.call("stop " + id)
}

func (f fakeContainers) Remove(_ context.Context, id string) error {
	return f.call("remove container " + id)
}

type fakeImages struct{ *host }

func (f fakeImages) List() []image.Image                        { return f.images }
func (f fakeImages) Remove(_ context.Context, ref string) error { return f.call("remove image " + ref) }
func (f fakeImages) EmptyTrash(context.Context) error           { return f.call("empty trash") }

func newHost(state container.State) *host {
	return &host{
		pods:       []*sandbox.Pod{{ID: "p", Ready: true, Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "web", Namespace: "ns"}}}},
		containers: []*container.Snapshot{{ID: "c", PodID: "p", State: state, Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "app"}}}},
		images:     []image.Image{{ID: "sha256:1", RepoTags: []string{"a:1"}}, {ID: "sha256:2"}},
	}
}

func confirm(answer bool, plan *Plan) func(Plan) (bool, error) {
	return func(p Plan) (bool, error) { *plan = p; return answer, nil }
}

// TestRunOrder checks the plan and the order of the removals, and that the managers run only during them.
func TestRunOrder(t *testing.T) {
	h := newHost(container.Exited)
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	h.monitors, h.exited = []proc.Ref{self, self}, true
	var plan Plan
	if err := Run(t.Context(), h.managers(), Options{Images: true, Confirm: confirm(true, &plan)}); err != nil {
		t.Error(err)
	}
	want := Plan{
		Pods:       []Pod{{ID: "p", Namespace: "ns", Name: "web", Ready: true}},
		Containers: []Container{{ID: "c", Pod: "p", Name: "app", State: "exited"}},
		Images:     []Image{{ID: "sha256:1", Tags: []string{"a:1"}}, {ID: "sha256:2", Tags: []string{}}},
	}
	if !reflect.DeepEqual(plan, want) {
		t.Errorf("got plan %+v, want %+v", plan, want)
	}
	slices.Sort(h.calls[4:6]) // images are removed in parallel
	if want := []string{
		"start", "stop c", "remove pod p", "remove container c", "remove image sha256:1", "remove image sha256:2", "end",
		"remove networks", "empty trash", "remove cgroup /monitors",
	}; !slices.Equal(h.calls, want) {
		t.Errorf("got calls %q, want %q", h.calls, want)
	}
}

// TestRunRefuses checks that nothing is removed without a confirmation, and while containers run or may run.
func TestRunRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		state     container.State
		confirmed bool
		refused   bool
	}{
		"not confirmed":     {container.Exited, false, false},
		"running container": {container.Running, true, true},
		"unknown container": {container.Unknown, true, true},
	} {
		h := newHost(tc.state)
		var plan Plan
		err := Run(t.Context(), h.managers(), Options{Confirm: confirm(tc.confirmed, &plan)})
		if errors.Is(err, ErrContainersRun) != tc.refused || len(h.calls) > 0 || len(plan.Images) > 0 {
			t.Errorf("%s: got %v, calls %q, images %v", name, err, h.calls, plan.Images)
		}
	}
	var plan Plan
	for _, state := range []container.State{container.Created, container.Exited} {
		if err := Run(t.Context(), newHost(state).managers(), Options{Confirm: confirm(true, &plan)}); err != nil {
			t.Errorf("state %v: %v", state, err)
		}
	}
	h := newHost(container.Running)
	if err := Run(t.Context(), h.managers(), Options{Force: true, Confirm: confirm(true, &plan)}); err != nil || !slices.Contains(h.calls, "stop c") {
		t.Errorf("force: got %v, calls %q", err, h.calls)
	}
}

// TestRunContinues checks that Run continues after each error and returns all of them.
func TestRunContinues(t *testing.T) {
	h := newHost(container.Exited)
	h.fail = make(map[string]error)
	steps := []string{"stop c", "remove pod p", "remove container c", "remove image sha256:1", "end", "remove networks", "empty trash"}
	for _, step := range steps {
		h.fail[step] = errors.New(step)
	}
	var plan Plan
	err := Run(t.Context(), h.managers(), Options{Images: true, Confirm: confirm(true, &plan)})
	for _, step := range steps {
		if !errors.Is(err, h.fail[step]) {
			t.Errorf("the error %v does not contain the error of %q", err, step)
		}
	}
	if !slices.Contains(h.calls, "remove image sha256:2") {
		t.Errorf("got calls %q, want the removal of both images", h.calls)
	}
}

// TestFindMonitors checks that a monitor that has exited is no error, and that an error does not hide other monitors.
func TestFindMonitors(t *testing.T) {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	h := &host{fail: map[string]error{"watch": proc.ErrGone}}
	if r, err := findMonitors(h, h, []proc.Ref{self}); err != nil || len(r.cgroups) > 0 {
		t.Errorf("monitor that has exited: got %v, %v", r.cgroups, err)
	}
	failure := errors.New("no file descriptors")
	h = &host{fail: map[string]error{"watch": failure}}
	if r, err := findMonitors(h, h, []proc.Ref{self}); !errors.Is(err, failure) || r.removeCgroups() != nil {
		t.Errorf("monitor that cannot be watched: got %v", err)
	}
}
