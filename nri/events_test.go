package nri

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestEvents checks that a plugin receives the events of a pod and a container in order.
func TestEvents(t *testing.T) {
	f, p := newFixture(t, nil), &plugin{}
	f.connect(t, p, "10")
	ctx, pod, c := t.Context(), testPod("pod"), testContainer("c")
	if err := f.RunPod(ctx, pod); err != nil {
		t.Fatal(err)
	}
	f.Listed(pod.GetId())
	if err := f.UpdatePod(ctx, pod, nil, &cri.LinuxContainerResources{CpuShares: 1}); err != nil {
		t.Fatal(err)
	}
	f.Notify(ctx, api.Event_POST_UPDATE_POD_SANDBOX, pod, nil)
	if _, _, err := f.CreateContainer(ctx, pod, c, testSpec()); err != nil {
		t.Fatal(err)
	}
	f.Listed(c.Status.GetId())
	f.Notify(ctx, api.Event_POST_CREATE_CONTAINER, pod, c)
	if err := f.StartContainer(ctx, pod, c); err != nil {
		t.Fatal(err)
	}
	f.Notify(ctx, api.Event_POST_START_CONTAINER, pod, c)
	limits := &cri.LinuxContainerResources{MemoryLimitInBytes: 5, OomScoreAdj: 7}
	got, others, err := f.UpdateContainer(ctx, pod, c, limits)
	if err != nil || got.CRI != limits || got.Extra != nil || len(others) != 0 {
		t.Errorf("an update that no plugin changes: got %+v, %v, %v", got, others, err)
	}
	f.Notify(ctx, api.Event_POST_UPDATE_CONTAINER, pod, c)
	if others := f.StopContainer(ctx, pod, c); len(others) != 0 {
		t.Errorf("StopContainer: got updates %v, want none", others)
	}
	f.Notify(ctx, api.Event_REMOVE_CONTAINER, pod, c)
	f.Notify(ctx, api.Event_STOP_POD_SANDBOX, pod, nil)
	f.Notify(ctx, api.Event_REMOVE_POD_SANDBOX, pod, nil)
	want := "run pod,update pod,updated pod,create c,created c,start c,started c,update c,updated c,stop c,remove c,stop pod,remove pod"
	if got := strings.Join(p.recorded(), ","); got != want {
		t.Errorf("got events\n %s, want\n %s", got, want)
	}
	if pods, containers := f.pending.list(); len(pods)+len(containers) != 0 {
		t.Errorf("got pending objects %v %v, want none", pods, containers)
	}
}

// TestLimitsInAnswers checks that the answers of plugins can change the limits of the container
// and of other containers.
func TestLimitsInAnswers(t *testing.T) {
	f := newFixture(t, nil)
	f.runtime.updateErrs["busy"] = errors.New("busy")
	other := func() []*api.ContainerUpdate {
		u := &api.ContainerUpdate{ContainerId: "other"}
		u.SetLinuxCPUSetCPUs("0")
		return []*api.ContainerUpdate{u}
	}
	f.connect(t, &plugin{
		onUpdateContainer: func(c *api.Container, r *api.LinuxResources) ([]*api.ContainerUpdate, error) {
			u := &api.ContainerUpdate{ContainerId: c.GetId()}
			u.SetLinuxMemoryLimit(r.GetMemory().GetLimit().GetValue() * 2)
			u.SetLinuxMemoryReservation(5)
			return append(other(), u), nil
		},
		onStopContainer: func(*api.Container) []*api.ContainerUpdate { return other() },
	}, "10")
	limits, others, err := f.UpdateContainer(t.Context(), testPod("p"), testContainer("c"), &cri.LinuxContainerResources{MemoryLimitInBytes: 8, CpuShares: 3, OomScoreAdj: 4})
	if err != nil || limits.CRI.GetMemoryLimitInBytes() != 16 || limits.CRI.GetCpuShares() != 3 || limits.CRI.GetOomScoreAdj() != 4 || *limits.Extra.Memory.Reservation != 5 {
		t.Errorf("got limits %+v, %v", limits, err)
	}
	if len(others) != 1 || others[0].ContainerID != "other" || others[0].Limits.CRI.GetCpusetCpus() != "0" {
		t.Errorf("UpdateContainer: got other updates %+v", others)
	}
	if others := f.StopContainer(t.Context(), testPod("p"), testContainer("c")); len(others) != 1 {
		t.Errorf("StopContainer: got updates %+v, want one", others)
	}
	for id, want := range map[string]bool{"other": true, "busy": false} {
		if err := f.UpdateOthers(t.Context(), []Update{{ContainerID: id}}); (err == nil) != want {
			t.Errorf("UpdateOthers for container %q: got %v", id, err)
		}
	}
	if err := f.UpdateOthers(t.Context(), []Update{{ContainerID: "busy", Optional: true}}); err != nil {
		t.Errorf("UpdateOthers for an optional update: got %v", err)
	}
}

func TestValidator(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.Validator = &Rules{RejectHooks: true, RequiredPlugins: []string{"test"}, TolerateMissing: "tolerate"}
	})
	create := func(annotations map[string]string) error {
		pod := testPod("p")
		pod.Annotations = annotations
		_, _, err := f.CreateContainer(t.Context(), pod, testContainer("c"), testSpec())
		return err
	}
	if err := create(nil); err == nil || !strings.Contains(err.Error(), `required plugin "test" not present`) {
		t.Errorf("without the required plugin: got %v", err)
	}
	if err := create(map[string]string{"tolerate": "true"}); err != nil {
		t.Errorf("with the annotation: got %v", err)
	}
	hooks := false
	f.connect(t, &plugin{onCreateContainer: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		a := &api.ContainerAdjustment{}
		if hooks {
			a.AddHooks(&api.Hooks{CreateRuntime: []*api.Hook{{Path: "/bin/true"}}})
		}
		return a, nil, nil
	}}, "10")
	if err := create(nil); err != nil {
		t.Errorf("with the required plugin: got %v", err)
	}
	hooks = true
	if err := create(nil); err == nil || !strings.Contains(err.Error(), "hook") {
		t.Errorf("with a hook: got %v, want an error", err)
	}
}

// BenchmarkEventWithoutPlugins measures the cost of an event on a node without plugins.
func BenchmarkEventWithoutPlugins(b *testing.B) {
	c := Config{
		Socket: filepath.Join(b.TempDir(), "nri.sock"), PluginDir: b.TempDir(), PluginConfigDir: b.TempDir(),
		RegistrationTimeout: time.Second, RequestTimeout: time.Second, Runtime: &fakeRuntime{},
	}
	m, err := New(c)
	if err != nil {
		b.Fatal(err)
	}
	pod, container := testPod("p"), testContainer("c")
	b.ReportAllocs()
	for b.Loop() {
		if err := m.StartContainer(b.Context(), pod, container); err != nil {
			b.Fatal(err)
		}
	}
}

// TestRemovals checks that removals take effect, although the answer of the library does not
// contain them.
func TestRemovals(t *testing.T) {
	f := newFixture(t, nil)
	f.connect(t, &plugin{onCreateContainer: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		a := &api.ContainerAdjustment{}
		a.RemoveEnv("A")
		a.RemoveDevice("/dev/one")
		a.RemoveMount("/proc")
		return a, nil, nil
	}}, "10")
	spec := testSpec()
	spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/one", Type: "c", Major: 1}, {Path: "/dev/two", Type: "c", Major: 2}}
	if _, _, err := f.CreateContainer(t.Context(), testPod("p"), testContainer("c"), spec); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(spec.Process.Env, []string{"PATH=/bin"}) || len(spec.Linux.Devices) != 1 || spec.Linux.Devices[0].Path != "/dev/two" || len(spec.Mounts) != 1 {
		t.Errorf("got env %v, devices %v, mounts %v", spec.Process.Env, spec.Linux.Devices, spec.Mounts)
	}
}
