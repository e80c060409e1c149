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

// TestSynchronize checks that a synchronization contains all pods and containers, also pending
// ones, and that its updates are applied.
func TestSynchronize(t *testing.T) {
	f := newFixture(t, nil)
	f.runtime.pods, f.runtime.containers = []*api.PodSandbox{testPod("old")}, []*Container{testContainer("c1"), testContainer("c2")}
	f.runtime.updateErrs["c2"] = errors.New("no")
	if err := f.RunPod(t.Context(), testPod("pending")); err != nil { // no plugin is connected, and the runtime does not list the pod yet
		t.Fatal(err)
	}
	p := &plugin{onSynchronize: func(_ []*api.PodSandbox, cs []*api.Container) []*api.ContainerUpdate {
		var out []*api.ContainerUpdate
		for _, c := range cs {
			u := &api.ContainerUpdate{ContainerId: c.GetId()}
			u.SetLinuxCPUShares(c.GetLinux().GetResources().GetCpu().GetShares().GetValue() + 1)
			out = append(out, u)
		}
		return out
	}}
	f.connect(t, p, "10")
	slices.Sort(p.synced)
	if got := strings.Join(p.synced, ","); got != "c1,c2,old,pending" {
		t.Errorf("got IDs %s in the synchronization", got)
	}
	waitFor(t, "the updates", func() bool { return len(f.runtime.applied()) == 2 })
	if u := f.runtime.applied()[0]; u.ContainerID != "c1" || u.Limits.CRI.GetCpuShares() != 513 {
		t.Errorf("got update %+v", u)
	}
}

// TestEventDuringSynchronize checks that a plugin receives an event that occurred during its
// synchronization.
func TestEventDuringSynchronize(t *testing.T) {
	f := newFixture(t, nil)
	reached, release := make(chan struct{}), make(chan struct{})
	p := &plugin{onSynchronize: func([]*api.PodSandbox, []*api.Container) []*api.ContainerUpdate {
		close(reached)
		<-release
		return nil
	}}
	var all sync.WaitGroup
	var runErr error
	all.Go(func() {
		<-reached
		all.Go(func() { runErr = f.RunPod(t.Context(), testPod("late")) })
		close(release)
	})
	f.connect(t, p, "10")
	all.Wait()
	if runErr != nil || !slices.Equal(p.recorded(), []string{"run late"}) || slices.Contains(p.synced, "late") {
		t.Errorf("got %v, events %v, IDs %v in the synchronization", runErr, p.recorded(), p.synced)
	}
}

func TestUnsolicitedUpdates(t *testing.T) {
	f, p := newFixture(t, nil), &plugin{}
	f.connect(t, p, "10")
	f.runtime.updateErrs["gone"] = errdefs.ErrNotFound
	valid, gone, invalid, ignored := &api.ContainerUpdate{ContainerId: "a"}, &api.ContainerUpdate{ContainerId: "gone"}, &api.ContainerUpdate{ContainerId: "b"}, &api.ContainerUpdate{ContainerId: "gone"}
	swappiness := &api.ContainerUpdate{ContainerId: "swappiness"}
	swappiness.SetLinuxMemorySwappiness(5)
	valid.SetLinuxMemoryLimit(1 << 20)
	valid.SetLinuxPidLimits(9)
	gone.SetLinuxCPUShares(1)
	invalid.SetLinuxCPUShares(1 << 63)
	ignored.SetIgnoreFailure()
	failed, err := p.stub.UpdateContainers([]*api.ContainerUpdate{valid, gone, invalid, ignored, {ContainerId: "empty"}, swappiness})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, u := range failed {
		ids = append(ids, u.GetContainerId())
	}
	if !slices.Equal(ids, []string{"gone", "b", "swappiness"}) {
		t.Errorf("got failed updates of %v", ids)
	}
	u := f.runtime.applied()[0]
	if u.Limits.CRI.GetMemoryLimitInBytes() != 1<<20 || u.Limits.Extra == nil || *u.Limits.Extra.Pids.Limit != 9 {
		t.Errorf("got update %+v", u)
	}
}

// TestUnsolicitedUpdateDuringEvent checks that an unsolicited update fails if the plugin is
// handling an event about the same container, and that the plugin remains connected.
func TestUnsolicitedUpdateDuringEvent(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.RequestTimeout = 2 * time.Second })
	f.runtime.locked = map[string]bool{"c": true}
	p := &plugin{}
	var failed []*api.ContainerUpdate
	p.onUpdateContainer = func(c *api.Container, _ *api.LinuxResources) (_ []*api.ContainerUpdate, err error) {
		failed, err = p.stub.UpdateContainers([]*api.ContainerUpdate{{ContainerId: c.GetId()}})
		return nil, err
	}
	f.connect(t, p, "10")
	if _, _, err := f.UpdateContainer(t.Context(), testPod("p"), testContainer("c"), &cri.LinuxContainerResources{}); err != nil {
		t.Error(err)
	}
	if len(failed) != 1 || !f.HasPlugins() {
		t.Errorf("got failed updates %v, connected: %v", failed, f.HasPlugins())
	}
}
