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

func TestEveryEventInOrder(t *testing.T) {
	b, p := newBed(t, nil), &plugin{}
	b.connect(t, p, "10")
	ctx, pod, c := t.Context(), testPod("pod"), testContainer("c")
	if err := b.RunPod(ctx, pod); err != nil {
		t.Fatal(err)
	}
	b.Settled(pod.ID)
	if err := b.UpdatePod(ctx, pod, nil, &cri.LinuxContainerResources{CpuShares: 1}); err != nil {
		t.Fatal(err)
	}
	b.PodUpdated(ctx, pod)
	if _, err := b.CreateContainer(ctx, pod, c, testSpec()); err != nil {
		t.Fatal(err)
	}
	b.ContainerCreated(ctx, pod, c)
	if err := b.StartContainer(ctx, pod, c); err != nil {
		t.Fatal(err)
	}
	b.ContainerStarted(ctx, pod, c)
	limits := &cri.LinuxContainerResources{MemoryLimitInBytes: 5, OomScoreAdj: 7}
	own, others, err := b.UpdateContainer(ctx, pod, c, limits)
	if err != nil || own.Limits != limits || own.Extra != nil || len(others) != 0 {
		t.Errorf("an update that no plugin changes: %+v, %v, %v", own, others, err)
	}
	b.ContainerUpdated(ctx, pod, c)
	if others := b.StopContainer(ctx, pod, c); len(others) != 0 {
		t.Errorf("stop: %v", others)
	}
	b.RemoveContainer(ctx, pod, c)
	b.StopPod(ctx, pod)
	b.RemovePod(ctx, pod)
	want := "run pod,update pod,updated pod,create c,created c,start c,started c,update c,updated c,stop c,remove c,stop pod,remove pod"
	if got := strings.Join(p.seen(), ","); got != want {
		t.Errorf("events\n %s, want\n %s", got, want)
	}
	if pods, containers := b.making.all(); len(pods)+len(containers) != 0 {
		t.Errorf("still in the making: %v %v", pods, containers)
	}
}

func TestAnswersChangeLimits(t *testing.T) {
	b := newBed(t, nil)
	b.runtime.fail["busy"] = errors.New("busy")
	other := func() []*api.ContainerUpdate {
		u := &api.ContainerUpdate{ContainerId: "other"}
		u.SetLinuxCPUSetCPUs("0")
		return []*api.ContainerUpdate{u}
	}
	b.connect(t, &plugin{
		alter: func(c *api.Container, r *api.LinuxResources) ([]*api.ContainerUpdate, error) {
			u := &api.ContainerUpdate{ContainerId: c.GetId()}
			u.SetLinuxMemoryLimit(r.GetMemory().GetLimit().GetValue() * 2)
			u.SetLinuxMemoryReservation(5)
			return append(other(), u), nil
		},
		ends: func(*api.Container) []*api.ContainerUpdate { return other() },
	}, "10")
	own, others, err := b.UpdateContainer(t.Context(), testPod("p"), testContainer("c"), &cri.LinuxContainerResources{MemoryLimitInBytes: 8, CpuShares: 3, OomScoreAdj: 4})
	if err != nil || own.Limits.GetMemoryLimitInBytes() != 16 || own.Limits.GetCpuShares() != 3 || own.Limits.GetOomScoreAdj() != 4 || *own.Extra.Memory.Reservation != 5 {
		t.Errorf("%+v, %v", own, err)
	}
	if len(others) != 1 || others[0].ContainerID != "other" || others[0].Limits.GetCpusetCpus() != "0" {
		t.Errorf("got %+v", others)
	}
	if others := b.StopContainer(t.Context(), testPod("p"), testContainer("c")); len(others) != 1 {
		t.Errorf("got %+v", others)
	}
	for id, want := range map[string]bool{"other": true, "busy": false} {
		if err := b.Others(t.Context(), []Update{{ContainerID: id}}); (err == nil) != want {
			t.Errorf("%s: %v", id, err)
		}
	}
	if err := b.Others(t.Context(), []Update{{ContainerID: "busy", Optional: true}}); err != nil {
		t.Error(err)
	}
}

func TestValidator(t *testing.T) {
	b := newBed(t, func(c *Config) {
		c.Validator = &Rules{RejectHooks: true, RequiredPlugins: []string{"test"}, TolerateMissing: "tolerate"}
	})
	create := func(annotations map[string]string) error {
		pod := testPod("p")
		pod.Config.Annotations = annotations
		_, err := b.CreateContainer(t.Context(), pod, testContainer("c"), testSpec())
		return err
	}
	if err := create(nil); err == nil || !strings.Contains(err.Error(), `required plugin "test" not present`) {
		t.Errorf("without the required plugin: %v", err)
	}
	if err := create(map[string]string{"tolerate": "true"}); err != nil {
		t.Errorf("with the annotation: %v", err)
	}
	hooks := false
	b.connect(t, &plugin{make: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		a := &api.ContainerAdjustment{}
		if hooks {
			a.AddHooks(&api.Hooks{CreateRuntime: []*api.Hook{{Path: "/bin/true"}}})
		}
		return a, nil, nil
	}}, "10")
	if err := create(nil); err != nil {
		t.Errorf("with it: %v", err)
	}
	hooks = true
	if err := create(nil); err == nil || !strings.Contains(err.Error(), "hook") {
		t.Errorf("with a hook: %v", err)
	}
}

// BenchmarkNoPlugin is what a node without plugins pays for each event.
func BenchmarkNoPlugin(b *testing.B) {
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

// The library forgets in its answer what a plugin removes.
func TestRemovalsArrive(t *testing.T) {
	b := newBed(t, nil)
	b.connect(t, &plugin{make: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		a := &api.ContainerAdjustment{}
		a.RemoveEnv("A")
		a.RemoveDevice("/dev/one")
		a.RemoveMount("/proc")
		return a, nil, nil
	}}, "10")
	spec := testSpec()
	spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/one", Type: "c", Major: 1}, {Path: "/dev/two", Type: "c", Major: 2}}
	if _, err := b.CreateContainer(t.Context(), testPod("p"), testContainer("c"), spec); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(spec.Process.Env, []string{"PATH=/bin"}) || len(spec.Linux.Devices) != 1 || spec.Linux.Devices[0].Path != "/dev/two" || len(spec.Mounts) != 1 {
		t.Errorf("env %v, devices %v, mounts %v", spec.Process.Env, spec.Linux.Devices, spec.Mounts)
	}
}
