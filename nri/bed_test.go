package nri

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeRuntime has what the test put there, and notes what is to be changed.
type fakeRuntime struct {
	mu         sync.Mutex
	pods       []Pod
	containers []Container
	updates    []Update
	fail       map[string]error
	hold       map[string]bool // containers that somebody else works on
}

func (f *fakeRuntime) Pods() []Pod { f.mu.Lock(); defer f.mu.Unlock(); return slices.Clone(f.pods) }
func (f *fakeRuntime) Containers() []Container {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.containers)
}

func (f *fakeRuntime) Update(ctx context.Context, u Update) error {
	if f.hold[u.ContainerID] {
		<-ctx.Done()
		return ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.updates = append(f.updates, u)
	return f.fail[u.ContainerID]
}

func (f *fakeRuntime) made() []Update {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.updates)
}

// bed is a Manager on a socket of its own.
type bed struct {
	*Manager
	runtime *fakeRuntime
	socket  string
}

func newBed(t *testing.T, change func(*Config)) *bed {
	t.Helper()
	b := &bed{runtime: &fakeRuntime{fail: map[string]error{}}, socket: filepath.Join(t.TempDir(), "nri", "nri.sock")}
	c := Config{
		Socket: b.socket, PluginDir: t.TempDir(), PluginConfigDir: t.TempDir(),
		RegistrationTimeout: 5 * time.Second, RequestTimeout: 5 * time.Second, Name: "test", Version: "0", Runtime: b.runtime,
	}
	if change != nil {
		change(&c)
	}
	var err error
	if b.Manager, err = New(c); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(ctx) })
	t.Cleanup(func() { b.Stop(); cancel(); running.Wait() })
	return b
}

// plugin is a real one, in this process. What it is not given it allows.
type plugin struct {
	sync  func([]*api.PodSandbox, []*api.Container) []*api.ContainerUpdate
	runs  func(context.Context, *api.PodSandbox) error
	make  func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error)
	alter func(*api.Container, *api.LinuxResources) ([]*api.ContainerUpdate, error)
	ends  func(*api.Container) []*api.ContainerUpdate

	mu     sync.Mutex
	events []string
	synced []string
	stub   stub.Stub
	closed chan struct{}
}

func (p *plugin) note(what, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, what+" "+id)
}

func (p *plugin) seen() []string { p.mu.Lock(); defer p.mu.Unlock(); return slices.Clone(p.events) }

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	p.mu.Lock()
	for _, x := range pods {
		p.synced = append(p.synced, x.GetId())
	}
	for _, x := range containers {
		p.synced = append(p.synced, x.GetId())
	}
	p.mu.Unlock()
	if p.sync != nil {
		return p.sync(pods, containers), nil
	}
	return nil, nil
}

func (p *plugin) RunPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	p.note("run", pod.GetId())
	if p.runs != nil {
		return p.runs(ctx, pod)
	}
	return nil
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.note("stop", pod.GetId())
	return nil
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.note("remove", pod.GetId())
	return nil
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, _, _ *api.LinuxResources) error {
	p.note("update", pod.GetId())
	return nil
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.note("updated", pod.GetId())
	return nil
}

func (p *plugin) CreateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	p.note("create", c.GetId())
	if p.make != nil {
		return p.make(c)
	}
	return nil, nil, nil
}

func (p *plugin) PostCreateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.note("created", c.GetId())
	return nil
}

func (p *plugin) StartContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.note("start", c.GetId())
	return nil
}

func (p *plugin) PostStartContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.note("started", c.GetId())
	return nil
}

func (p *plugin) UpdateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container, r *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	p.note("update", c.GetId())
	if p.alter != nil {
		return p.alter(c, r)
	}
	return nil, nil
}

func (p *plugin) PostUpdateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.note("updated", c.GetId())
	return nil
}

func (p *plugin) StopContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) ([]*api.ContainerUpdate, error) {
	p.note("stop", c.GetId())
	if p.ends != nil {
		return p.ends(c), nil
	}
	return nil, nil
}

func (p *plugin) RemoveContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.note("remove", c.GetId())
	return nil
}

// connect returns when the manager counts the plugin.
func (b *bed) connect(t *testing.T, p *plugin, index string, opts ...stub.Option) {
	t.Helper()
	before := b.plugins.Load()
	p.closed = make(chan struct{})
	opts = append(opts, stub.WithSocketPath(b.socket), stub.WithPluginName("test"), stub.WithPluginIdx(index),
		stub.WithOnClose(sync.OnceFunc(func() { close(p.closed) })))
	var err error
	if p.stub, err = stub.New(p, opts...); err != nil {
		t.Fatal(err)
	}
	if err := p.stub.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stub.Stop)
	await(t, "the plugin to be counted", func() bool { return b.plugins.Load() == before+1 })
}

// await fails the test when what it waits for does not come at all.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func testPod(id string) Pod {
	return Pod{ID: id, Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "n", Namespace: "ns", Uid: "u"}}}
}

func testSpec() *specs.Spec {
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{Args: []string{"sh"}, Env: []string{"PATH=/bin", "A=1"}},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: "/data/in", Type: "bind", Source: "/x"}},
		Linux: &specs.Linux{
			CgroupsPath: "/p/c", Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace, Path: "/n"}},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
}

func testContainer(id string) Container {
	return Container{
		ID: id, PodID: "pod", State: Created, Spec: func() (*specs.Spec, error) { return testSpec(), nil },
		Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "c-" + id}, Labels: map[string]string{"l": "1"}},
		Limits: &cri.LinuxContainerResources{CpuShares: 512},
	}
}
