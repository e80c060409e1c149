package nri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
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

func TestRefusalHasThePluginsWords(t *testing.T) {
	b := newBed(t, nil)
	first := &plugin{}
	b.connect(t, first, "00")
	b.connect(t, &plugin{
		runs: func(context.Context, *api.PodSandbox) error { return errors.New("no pods on Sundays") },
		make: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
			return nil, nil, errors.New("nor containers")
		},
	}, "10")
	err := b.RunPod(t.Context(), testPod("p"))
	if err == nil || !strings.Contains(err.Error(), `plugin "10-test", RunPodSandbox: no pods on Sundays`) {
		t.Errorf("got %v", err)
	}
	_, err = b.CreateContainer(t.Context(), testPod("p"), testContainer("c"), testSpec())
	if err == nil || !strings.Contains(err.Error(), "nor containers") {
		t.Errorf("got %v", err)
	}
	if errdefs.IsNotFound(err) || b.plugins.Load() != 2 {
		t.Errorf("a refusal must not cost the connection: %d plugins, %v", b.plugins.Load(), err)
	}
}

// A plugin that does not answer costs the request its time-out, once; then it is
// gone, and nobody waits for it any more.
func TestHangingPluginIsDropped(t *testing.T) {
	b := newBed(t, func(c *Config) { c.RequestTimeout = 200 * time.Millisecond })
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	p := &plugin{runs: func(context.Context, *api.PodSandbox) error { <-release; return nil }}
	b.connect(t, p, "10")
	var all sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		all.Go(func() { errs[i] = b.RunPod(t.Context(), testPod(fmt.Sprint(i))) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Errorf("requests fail with a plugin that hangs: %v", err)
	}
	if n := len(p.seen()); n != 1 {
		t.Errorf("%d requests waited for the plugin that hangs, want 1", n)
	}
	await(t, "the plugin's end", func() bool { return !b.Any() })
}

func TestWaitingForATurnEndsWithTheCaller(t *testing.T) {
	b := newBed(t, nil)
	reached, release := make(chan struct{}), make(chan struct{})
	b.connect(t, &plugin{runs: func(context.Context, *api.PodSandbox) error { close(reached); <-release; return nil }}, "10")
	done := make(chan error, 1)
	go func() { done <- b.RunPod(context.WithoutCancel(t.Context()), testPod("slow")) }()
	<-reached
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.StartContainer(ctx, testPod("p"), testContainer("c")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPluginThatDiesMidRequest(t *testing.T) {
	b := newBed(t, nil)
	p := &plugin{}
	p.runs = func(context.Context, *api.PodSandbox) error { go p.stub.Stop(); <-p.closed; return nil }
	b.connect(t, p, "10")
	if err := b.RunPod(t.Context(), testPod("p")); err != nil {
		t.Errorf("got %v", err)
	}
	await(t, "the plugin's end", func() bool { _ = b.RunPod(t.Context(), testPod("q")); return !b.Any() })
}

// fail_request is the plugin's own wish.
func TestPluginThatInsists(t *testing.T) {
	b := newBed(t, func(c *Config) { c.RequestTimeout = 200 * time.Millisecond })
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	p := &plugin{runs: func(context.Context, *api.PodSandbox) error { <-release; return nil }}
	b.connect(t, p, "10", stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: true}))
	if err := b.RunPod(t.Context(), testPod("p")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestNonsenseOnTheSocket(t *testing.T) {
	b := newBed(t, func(c *Config) { c.RegistrationTimeout = 300 * time.Millisecond })
	for _, data := range []string{"", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 64<<10)} {
		conn, err := net.Dial("unix", b.socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write([]byte(data)); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Log(err) // it was thrown out before it had said it all
		}
	}
	p := &plugin{}
	b.connect(t, p, "10")
	if err := b.RunPod(t.Context(), testPod("p")); err != nil || len(p.seen()) != 1 {
		t.Errorf("%v, %v", err, p.seen())
	}
}

func TestSynchronize(t *testing.T) {
	b := newBed(t, nil)
	b.runtime.pods, b.runtime.containers = []Pod{testPod("old")}, []Container{testContainer("c1"), testContainer("c2")}
	b.runtime.fail["c2"] = errors.New("no")
	if err := b.RunPod(t.Context(), testPod("unseen")); err != nil { // nobody is asked, and it is not shown yet
		t.Fatal(err)
	}
	p := &plugin{sync: func(_ []*api.PodSandbox, cs []*api.Container) []*api.ContainerUpdate {
		var out []*api.ContainerUpdate
		for _, c := range cs {
			u := &api.ContainerUpdate{ContainerId: c.GetId()}
			u.SetLinuxCPUShares(c.GetLinux().GetResources().GetCpu().GetShares().GetValue() + 1)
			out = append(out, u)
		}
		return out
	}}
	b.connect(t, p, "10")
	slices.Sort(p.synced)
	if got := strings.Join(p.synced, ","); got != "c1,c2,old,unseen" {
		t.Errorf("synchronized with %s", got)
	}
	await(t, "the updates", func() bool { return len(b.runtime.made()) == 2 })
	if u := b.runtime.made()[0]; u.ContainerID != "c1" || u.Limits.GetCpuShares() != 513 {
		t.Errorf("got %+v", u)
	}
}

// What is made while a plugin is being synchronized is told to it afterwards.
func TestMadeDuringSynchronize(t *testing.T) {
	b := newBed(t, nil)
	reached, release := make(chan struct{}), make(chan struct{})
	p := &plugin{sync: func([]*api.PodSandbox, []*api.Container) []*api.ContainerUpdate {
		close(reached)
		<-release
		return nil
	}}
	var all sync.WaitGroup
	var runErr error
	all.Go(func() {
		<-reached
		all.Go(func() { runErr = b.RunPod(t.Context(), testPod("late")) })
		close(release)
	})
	b.connect(t, p, "10")
	all.Wait()
	if runErr != nil || !slices.Equal(p.seen(), []string{"run late"}) || slices.Contains(p.synced, "late") {
		t.Errorf("%v: events %v, synchronized %v", runErr, p.seen(), p.synced)
	}
}

func TestUnsolicitedUpdates(t *testing.T) {
	b, p := newBed(t, nil), &plugin{}
	b.connect(t, p, "10")
	b.runtime.fail["gone"] = errdefs.ErrNotFound
	good, gone, nonsense, ignored := &api.ContainerUpdate{ContainerId: "a"}, &api.ContainerUpdate{ContainerId: "gone"}, &api.ContainerUpdate{ContainerId: "b"}, &api.ContainerUpdate{ContainerId: "gone"}
	swappy := &api.ContainerUpdate{ContainerId: "swappy"}
	swappy.SetLinuxMemorySwappiness(5)
	good.SetLinuxMemoryLimit(1 << 20)
	good.SetLinuxPidLimits(9)
	gone.SetLinuxCPUShares(1)
	nonsense.SetLinuxCPUShares(1 << 63)
	ignored.SetIgnoreFailure()
	failed, err := p.stub.UpdateContainers([]*api.ContainerUpdate{good, gone, nonsense, ignored, {ContainerId: "empty"}, swappy})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, u := range failed {
		ids = append(ids, u.GetContainerId())
	}
	if !slices.Equal(ids, []string{"gone", "b", "swappy"}) {
		t.Errorf("failed: %v", ids)
	}
	u := b.runtime.made()[0]
	if u.Limits.GetMemoryLimitInBytes() != 1<<20 || u.Extra == nil || *u.Extra.Pids.Limit != 9 {
		t.Errorf("got %+v", u)
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

func TestSocketOfAnother(t *testing.T) {
	b := newBed(t, nil)
	c := b.cfg
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); !errors.Is(err, ErrSocketInUse) {
		t.Errorf("got %v", err)
	}
	if SocketInUse(filepath.Join(t.TempDir(), "none")) {
		t.Error("a socket that is not there is in use")
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	c.Socket = filepath.Join(open, "nri.sock")
	if m, err = New(c); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); err == nil || !strings.Contains(err.Error(), "can be written to by others") {
		t.Errorf("got %v", err)
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

// A plugin that wants to change, amid its answer about a container, this very
// container by another way, is told that it cannot; it is not taken for dead.
func TestUnsolicitedAmidAnAnswer(t *testing.T) {
	b := newBed(t, func(c *Config) { c.RequestTimeout = 2 * time.Second })
	b.runtime.hold = map[string]bool{"c": true}
	p := &plugin{}
	var failed []*api.ContainerUpdate
	p.alter = func(c *api.Container, _ *api.LinuxResources) (_ []*api.ContainerUpdate, err error) {
		failed, err = p.stub.UpdateContainers([]*api.ContainerUpdate{{ContainerId: c.GetId()}})
		return nil, err
	}
	b.connect(t, p, "10")
	if _, _, err := b.UpdateContainer(t.Context(), testPod("p"), testContainer("c"), &cri.LinuxContainerResources{}); err != nil {
		t.Error(err)
	}
	if len(failed) != 1 || !b.Any() {
		t.Errorf("failed: %v; connected: %v", failed, b.Any())
	}
}
