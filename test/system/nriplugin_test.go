package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
)

// With pluginVariable in its environment, the test binary is an NRI plugin. It writes one
// line per event to the file that the variable names. Annotations "ask/" with the name of
// an event select its answers.
const (
	pluginVariable = "SYSTEM_TEST_PLUGIN"
	pluginSocket   = "SYSTEM_TEST_PLUGIN_SOCKET"
)

type testPlugin struct {
	stub stub.Stub
	mu   sync.Mutex
	log  *os.File
}

// pluginMain runs the plugin, and connects again after a disconnection, until it is killed.
func pluginMain() int {
	log, err := os.OpenFile(os.Getenv(pluginVariable), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		p := &testPlugin{log: log}
		var opts []stub.Option
		if s := os.Getenv(pluginSocket); s != "" { // otherwise the daemon has started the plugin
			opts = append(opts, stub.WithSocketPath(s), stub.WithPluginName("test"), stub.WithPluginIdx("10"))
		}
		if p.stub, err = stub.New(p, opts...); err == nil {
			_ = p.stub.Run(context.Background()) // Run ends with the daemon, or when the daemon refuses the plugin
		}
		if os.Getenv(pluginSocket) == "" {
			return 0
		}
		time.Sleep(20 * time.Millisecond) // the daemon does not run yet
	}
}

func (p *testPlugin) note(words ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.log, words...)
}

// obey executes the common values of an annotation.
func (p *testPlugin) obey(ctx context.Context, event string, annotations map[string]string) error {
	switch what := annotations["ask/"+event]; what {
	case "refuse":
		return errors.New("not on this node")
	case "die":
		os.Exit(9)
	case "hang":
		select {}
	case "", "adjust":
	default: // the path of a file to wait for
		for ctx.Err() == nil {
			if _, err := os.Stat(what); err == nil {
				return nil
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

func (p *testPlugin) Configure(_ context.Context, config, runtime, version string) (api.EventMask, error) {
	p.note("Configure", runtime, version != "", config)
	return 0, nil
}

func (p *testPlugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	for _, x := range pods {
		p.note("SyncPod", x.GetId(), x.GetName())
	}
	for _, c := range containers {
		p.note("SyncContainer", c.GetId(), c.GetState(), c.GetLinux().GetResources().GetMemory().GetLimit().GetValue())
	}
	p.note("Synchronize")
	return nil, nil
}

func (p *testPlugin) RunPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	netns := ""
	for _, n := range pod.GetLinux().GetNamespaces() {
		if n.GetType() == "network" {
			netns = n.GetPath()
		}
	}
	_, err := os.Stat(netns)
	p.note("RunPodSandbox", pod.GetId(), pod.GetName(), pod.GetNamespace(), pod.GetUid(), len(pod.GetIps()), err == nil)
	return p.obey(ctx, "RunPodSandbox", pod.GetAnnotations())
}

func (p *testPlugin) UpdatePodSandbox(ctx context.Context, pod *api.PodSandbox, overhead, resources *api.LinuxResources) error {
	p.note("UpdatePodSandbox", pod.GetId(), overhead.GetCpu().GetShares().GetValue(), resources.GetMemory().GetLimit().GetValue())
	if resources.GetCpu().GetShares().GetValue() == 13 {
		return errors.New("thirteen shares bring bad luck")
	}
	return nil
}

func (p *testPlugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.note("PostUpdatePodSandbox", pod.GetId(), pod.GetLinux().GetPodResources().GetMemory().GetLimit().GetValue())
	return errors.New("too late to matter")
}

func (p *testPlugin) StopPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	p.note("StopPodSandbox", pod.GetId())
	return p.obey(ctx, "StopPodSandbox", pod.GetAnnotations())
}

func (p *testPlugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.note("RemovePodSandbox", pod.GetId())
	return nil
}

func (p *testPlugin) CreateContainer(ctx context.Context, _ *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	p.note("CreateContainer", c.GetId(), c.GetName())
	a := c.GetAnnotations()
	if err := p.obey(ctx, "CreateContainer", a); err != nil {
		return nil, nil, err
	}
	var others []*api.ContainerUpdate
	if id := a["others"]; id != "" {
		others = append(others, shares(id, 300))
	}
	adj := &api.ContainerAdjustment{}
	if class := a["blockio"]; class != "" {
		adj.SetLinuxBlockIOClass(class)
	}
	if a["ask/CreateContainer"] == "adjust" {
		adjustAll(adj, c, a)
	}
	return adj, others, nil
}

func adjustAll(adj *api.ContainerAdjustment, c *api.Container, a map[string]string) {
	adj.AddEnv("ADDED", "by a plugin")
	adj.RemoveEnv("UNWANTED")
	adj.AddAnnotation("seen", "yes")
	adj.AddMount(&api.Mount{Destination: "/from/plugin", Type: "bind", Source: a["mount"], Options: []string{"rbind", "ro"}})
	adj.AddRlimit("RLIMIT_NOFILE", 777, 666)
	adj.AddDevice(&api.LinuxDevice{Path: "/dev/given", Type: "c", Major: 1, Minor: 3, FileMode: api.FileMode(os.FileMode(0o666))})
	adj.SetLinuxMemoryLimit(64 << 20)
	adj.SetLinuxCPUShares(333)
	adj.SetLinuxPidLimits(55)
	score := 432
	adj.SetLinuxOomScoreAdj(&score)
	adj.SetLinuxCgroupsPath(c.GetLinux().GetCgroupsPath() + "-moved")
	adj.SetLinuxSysctl("net.ipv4.ip_unprivileged_port_start", "77")
	adj.SetLinuxIOPriority(&api.LinuxIOPriority{Class: api.IOPrioClass_IOPRIO_CLASS_BE, Priority: 6})
	adj.AddHooks(&api.Hooks{CreateRuntime: []*api.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >/dev/null; touch " + filepath.Join(a["mount"], "hooked")}}}})
}

func shares(id string, n uint64) *api.ContainerUpdate {
	u := &api.ContainerUpdate{ContainerId: id}
	u.SetLinuxCPUShares(n)
	return u
}

func (p *testPlugin) PostCreateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.note("PostCreateContainer", c.GetId())
	return nil
}

func (p *testPlugin) StartContainer(ctx context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.note("StartContainer", c.GetId())
	return p.obey(ctx, "StartContainer", c.GetAnnotations())
}

// PostStartContainer sends an unsolicited update if an annotation asks for it.
func (p *testPlugin) PostStartContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.note("PostStartContainer", c.GetId())
	n, err := strconv.ParseUint(c.GetAnnotations()["later"], 10, 64)
	if err == nil {
		go func() {
			failed, err := p.stub.UpdateContainers([]*api.ContainerUpdate{shares(c.GetId(), n), shares("nobody", 2)})
			p.note("UpdateContainers", len(failed), err)
		}()
	}
	return nil
}

func (p *testPlugin) UpdateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container, r *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	p.note("UpdateContainer", c.GetId(), r.GetMemory().GetLimit().GetValue())
	if r.GetCpu().GetShares().GetValue() != 500 {
		return nil, nil
	}
	u := shares(c.GetId(), 555)
	u.SetLinuxMemoryReservation(8 << 20)
	return []*api.ContainerUpdate{u}, nil
}

func (p *testPlugin) PostUpdateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.note("PostUpdateContainer", c.GetId(), c.GetLinux().GetResources().GetCpu().GetShares().GetValue())
	return nil
}

func (p *testPlugin) StopContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) ([]*api.ContainerUpdate, error) {
	p.note("StopContainer", c.GetId(), c.GetState())
	if id := c.GetAnnotations()["heir"]; id != "" {
		return []*api.ContainerUpdate{shares(id, 400)}, nil
	}
	return nil, nil
}

func (p *testPlugin) RemoveContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.note("RemoveContainer", c.GetId(), c.GetName())
	return nil
}
