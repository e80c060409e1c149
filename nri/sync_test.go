package nri

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/api"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

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
