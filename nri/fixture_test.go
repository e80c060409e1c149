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

// fakeRuntime is a Runtime with the pods and containers of a test. It records updates.
type fakeRuntime struct {
	mu         sync.Mutex
	pods       []*api.PodSandbox
	containers []*Container
	updates    []Update
	updateErrs map[string]error
	locked     map[string]bool // containers whose operation lock is held
}

func (f *fakeRuntime) Pods() []*api.PodSandbox {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.pods)
}

func (f *fakeRuntime) Containers() []*Container {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.containers)
}

func (f *fakeRuntime) Update(ctx context.Context, u Update) error {
	if f.locked[u.ContainerID] {
		<-ctx.Done()
		return ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.updates = append(f.updates, u)
	return f.updateErrs[u.ContainerID]
}

// applied returns the updates so far.
func (f *fakeRuntime) applied() []Update {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.updates)
}

// fixture is a running Manager with its own socket.
type fixture struct {
	*Manager
	runtime *fakeRuntime
	socket  string
}

func newFixture(t *testing.T, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{runtime: &fakeRuntime{updateErrs: map[string]error{}}, socket: filepath.Join(t.TempDir(), "nri", "nri.sock")}
	c := Config{
		Socket: f.socket, PluginDir: t.TempDir(), PluginConfigDir: t.TempDir(),
		RegistrationTimeout: 5 * time.Second, RequestTimeout: 5 * time.Second, Name: "test", Version: "0", Runtime: f.runtime,
	}
	if change != nil {
		change(&c)
	}
	var err error
	if f.Manager, err = New(c); err != nil {
		t.Fatal(err)
	}
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = f.Run(ctx) })
	t.Cleanup(func() { f.Stop(); cancel(); running.Wait() })
	return f
}

// plugin is a real plugin that runs in the process of the test. It answers the events whose
// functions are nil without changes.
type plugin struct {
	onSynchronize     func([]*api.PodSandbox, []*api.Container) []*api.ContainerUpdate
	onRunPod          func(context.Context, *api.PodSandbox) error
	onCreateContainer func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error)
	onUpdateContainer func(*api.Container, *api.LinuxResources) ([]*api.ContainerUpdate, error)
	onStopContainer   func(*api.Container) []*api.ContainerUpdate

	mu     sync.Mutex
	events []string
	synced []string // IDs of pods and containers in the synchronization
	stub   stub.Stub
	closed chan struct{}
}

// record records an event.
func (p *plugin) record(event, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, event+" "+id)
}

// recorded returns the events so far.
func (p *plugin) recorded() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events)
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	p.mu.Lock()
	for _, x := range pods {
		p.synced = append(p.synced, x.GetId())
	}
	for _, x := range containers {
		p.synced = append(p.synced, x.GetId())
	}
	p.mu.Unlock()
	if p.onSynchronize != nil {
		return p.onSynchronize(pods, containers), nil
	}
	return nil, nil
}

func (p *plugin) RunPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	p.record("run", pod.GetId())
	if p.onRunPod != nil {
		return p.onRunPod(ctx, pod)
	}
	return nil
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.record("stop", pod.GetId())
	return nil
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.record("remove", pod.GetId())
	return nil
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, _, _ *api.LinuxResources) error {
	p.record("update", pod.GetId())
	return nil
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.record("updated", pod.GetId())
	return nil
}

func (p *plugin) CreateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	p.record("create", c.GetId())
	if p.onCreateContainer != nil {
		return p.onCreateContainer(c)
	}
	return nil, nil, nil
}

func (p *plugin) PostCreateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.record("created", c.GetId())
	return nil
}

func (p *plugin) StartContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.record("start", c.GetId())
	return nil
}

func (p *plugin) PostStartContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.record("started", c.GetId())
	return nil
}

func (p *plugin) UpdateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container, r *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	p.record("update", c.GetId())
	if p.onUpdateContainer != nil {
		return p.onUpdateContainer(c, r)
	}
	return nil, nil
}

func (p *plugin) PostUpdateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.record("updated", c.GetId())
	return nil
}

func (p *plugin) StopContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) ([]*api.ContainerUpdate, error) {
	p.record("stop", c.GetId())
	if p.onStopContainer != nil {
		return p.onStopContainer(c), nil
	}
	return nil, nil
}

func (p *plugin) RemoveContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.record("remove", c.GetId())
	return nil
}

// connect connects a plugin, and returns when the plugin is synchronized.
func (f *fixture) connect(t *testing.T, p *plugin, index string, opts ...stub.Option) {
	t.Helper()
	before := f.plugins.Load()
	p.closed = make(chan struct{})
	opts = append(opts, stub.WithSocketPath(f.socket), stub.WithPluginName("test"), stub.WithPluginIdx(index),
		stub.WithOnClose(sync.OnceFunc(func() { close(p.closed) })))
	var err error
	if p.stub, err = stub.New(p, opts...); err != nil {
		t.Fatal(err)
	}
	if err := p.stub.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stub.Stop)
	waitFor(t, "the synchronization of the plugin", func() bool { return f.plugins.Load() == before+1 })
}

// waitFor waits until ok returns true. It fails the test after 30 seconds.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout while waiting for %s", what)
		}
	}
}

func testPod(id string) *api.PodSandbox {
	return &api.PodSandbox{Id: id, Name: "n", Namespace: "ns", Uid: "u"}
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

func testContainer(id string) *Container {
	return &Container{
		Status: &api.Container{Id: id, PodSandboxId: "pod", State: api.ContainerState_CONTAINER_CREATED},
		Spec:   func() (*specs.Spec, error) { return testSpec(), nil },
		Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "c-" + id}, Labels: map[string]string{"l": "1"}},
		Limits: Limits{CRI: &cri.LinuxContainerResources{CpuShares: 512}},
	}
}
