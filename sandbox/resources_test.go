package sandbox

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestUpdateResources(t *testing.T) {
	b, _ := fakeBed(t)
	b.cfg.CheckResources = func(field string, r *cri.LinuxContainerResources) error {
		if r.GetCpuShares() == 1 {
			return fmt.Errorf("%s.cpu_shares: %w", field, errdefs.ErrInvalidArgument)
		}
		return nil
	}
	m := b.start()
	c := podConfig("a")
	c.Linux.Overhead = &cri.LinuxContainerResources{CpuShares: 10}
	c.Linux.Resources = &cri.LinuxContainerResources{CpuShares: 100, MemoryLimitInBytes: 1 << 30}
	p := mustRun(t, m, c)
	checkLimits := func(overhead, resources *cri.LinuxContainerResources) {
		t.Helper()
		got, err := m.Get(p.ID)
		if err != nil || !proto.Equal(got.Overhead, overhead) || !proto.Equal(got.Resources, resources) || !proto.Equal(got.Config, c) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	checkLimits(c.Linux.Overhead, c.Linux.Resources)
	more := &cri.LinuxContainerResources{CpuShares: 200}
	if err := m.UpdateResources(t.Context(), p.ID[:8], nil, more); err != nil {
		t.Fatal(err)
	}
	checkLimits(c.Linux.Overhead, more)
	if err := m.UpdateResources(t.Context(), p.ID, &cri.LinuxContainerResources{CpuShares: 20}, nil); err != nil {
		t.Fatal(err)
	}
	checkLimits(&cri.LinuxContainerResources{CpuShares: 20}, more)
	for field, args := range map[string][2]*cri.LinuxContainerResources{"overhead": {{CpuShares: 1}, more}, "resources": {more, {CpuShares: 1}}} {
		if err := m.UpdateResources(t.Context(), p.ID, args[0], args[1]); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), ": "+field+".cpu_shares") {
			t.Errorf("%s: got error %v", field, err)
		}
	}
	bad := podConfig("bad")
	bad.Linux.Overhead = &cri.LinuxContainerResources{CpuShares: 1}
	if _, err := m.RunPod(t.Context(), bad, ""); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "linux.overhead.cpu_shares") {
		t.Errorf("RunPod: got error %v", err)
	}
	b.halt()
	m = b.start()
	checkLimits(&cri.LinuxContainerResources{CpuShares: 20}, more)
	again, err := m.RunPod(t.Context(), c, "")
	if err != nil || again != p.ID {
		t.Errorf("request of the pod again: got %q, %v", again, err)
	}
	if err := m.Stop(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if err := m.UpdateResources(t.Context(), p.ID, nil, more); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("stopped pod: got error %v", err)
	}
	mustRemove(t, m, p.ID)
	if err := m.UpdateResources(t.Context(), p.ID, nil, more); !errdefs.IsNotFound(err) {
		t.Errorf("removed pod: got error %v", err)
	}
}

func TestUpdateResourcesWithoutRecord(t *testing.T) {
	b, _ := fakeBed(t)
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	file := m.dirs.file(p.ID)
	record, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(file+"/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := m.UpdateResources(t.Context(), p.ID, nil, &cri.LinuxContainerResources{CpuShares: 5}); err == nil {
		t.Error("got no error")
	}
	if got, err := m.Get(p.ID); err != nil || got.Resources != nil {
		t.Errorf("got resources %v, %v; want the limits before the update", got.Resources, err)
	}
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, record, 0o600); err != nil {
		t.Fatal(err)
	}
	mustRemove(t, m, p.ID)
}
