package container

import (
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/runtime"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// settingsManager returns a Manager without containers that has the runtimes a and b.
func settingsManager(t *testing.T) *Manager {
	t.Helper()
	m, err := New(Config{RunDir: t.TempDir(), Settings: Settings{
		Runtimes: map[string]*runtime.Runtime{"a": {Name: "a", Path: "/a"}, "b": {Name: "b", Path: "/b"}}, DefaultRuntime: "a",
	}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestRuntimeOfPod checks which runtime a new container in a pod gets, also if the handler of the
// pod is no longer configured.
func TestRuntimeOfPod(t *testing.T) {
	m := settingsManager(t)
	pod := func(handler string) Pod { return Pod{ID: "pod", RuntimeHandler: handler} }
	expect := func(handler, path string) {
		t.Helper()
		r, err := m.runtime(m.settings.Load(), pod(handler))
		if path == "" {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("handler %q: got %v, %v, want ErrInvalidArgument", handler, r, err)
			}
		} else if err != nil || r.Path != path {
			t.Errorf("handler %q: got %v, %v, want %s", handler, r, err, path)
		}
	}
	expect("", "/a")
	expect("b", "/b")
	expect("c", "")
	only := map[string]*runtime.Runtime{"c": {Name: "c", Path: "/c"}}
	if err := m.Update(Settings{Runtimes: only, DefaultRuntime: "c", FormerRuntimes: map[string]*runtime.Runtime{"b": {Name: "b", Path: "/b"}}}); err != nil {
		t.Fatal(err)
	}
	expect("", "/c")
	expect("b", "/b")
	expect("a", "")
	// After a restart of the daemon, the records of the other containers in the pod have the runtime.
	c := newContainer(m.dir("1"), &record.Record{ID: "1", PodID: "pod", Runtime: runtime.Runtime{Name: "a", Path: "/old"}},
		&cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "c"}}, &cri.PodSandboxConfig{})
	if err := m.register(c); err != nil {
		t.Fatal(err)
	}
	expect("a", "/old")
	if r, err := m.runtime(m.settings.Load(), Pod{ID: "other", RuntimeHandler: "a"}); err == nil {
		t.Errorf("another pod: got %v, want an error", r)
	}
}

func TestUpdateSettings(t *testing.T) {
	m := settingsManager(t)
	if err := m.Update(Settings{DefaultRuntime: "none"}); !errdefs.IsInvalidArgument(err) || m.settings.Load().DefaultRuntime != "a" {
		t.Errorf("settings without the default runtime: got %v and default %q", err, m.settings.Load().DefaultRuntime)
	}
	next := Settings{Runtimes: map[string]*runtime.Runtime{"b": {Name: "b", Path: "/b"}}, DefaultRuntime: "b"}
	if err := m.Update(next); err != nil || m.settings.Load().DefaultRuntime != "b" {
		t.Errorf("got %v and default %q, want b", err, m.settings.Load().DefaultRuntime)
	}
}

// TestCreateKeepsSettings replaces the settings during a creation. The creation uses the settings
// of its beginning, and the next creation the new ones.
func TestCreateKeepsSettings(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	next := *m.settings.Load()
	next.Builder = oci.NewBuilder(oci.Host{CgroupV2: b.tree.V2(), Seccomp: false}, oci.Defaults{Capabilities: []string{"CHOWN"}})
	capabilities := func(id string) int {
		c, err := m.find(id)
		if err != nil {
			t.Fatal(err)
		}
		return len(c.process.Capabilities.Bounding)
	}
	p, err := m.parse("pod", shell("first", "sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Update(next); err != nil {
		t.Fatal(err)
	}
	first, err := m.create(t.Context(), name{p.pod.ID, p.spec.Name, p.spec.Attempt}, p)
	if err != nil {
		t.Fatal(err)
	}
	second := b.run(m, shell("second", "sleep 1000"))
	if capabilities(first) <= 1 || capabilities(second) > 1 {
		t.Errorf("capabilities: first %d, second %d; want those of the old and of the new settings", capabilities(first), capabilities(second))
	}
}
