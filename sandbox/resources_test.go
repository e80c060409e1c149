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

func TestUpdateResourcesOfAPod(t *testing.T) {
	b, _ := fakeBed(t)
	m := b.start()
	m.cfg.CheckResources = func(field string, r *cri.LinuxContainerResources) error {
		if r.GetCpuShares() == 1 {
			return fmt.Errorf("%s.cpu_shares: %w", field, errdefs.ErrInvalidArgument)
		}
		return nil
	}
	c := podConfig("a")
	c.Linux.Overhead = &cri.LinuxContainerResources{CpuShares: 10}
	c.Linux.Resources = &cri.LinuxContainerResources{CpuShares: 100, MemoryLimitInBytes: 1 << 30}
	p := mustRun(t, m, c)
	inForce := func(overhead, resources *cri.LinuxContainerResources) {
		t.Helper()
		got, err := m.Get(p.ID)
		if err != nil || !proto.Equal(got.Overhead, overhead) || !proto.Equal(got.Resources, resources) || !proto.Equal(got.Config, c) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	inForce(c.Linux.Overhead, c.Linux.Resources)
	more := &cri.LinuxContainerResources{CpuShares: 200}
	if err := m.UpdateResources(t.Context(), p.ID[:8], nil, more); err != nil {
		t.Fatal(err)
	}
	inForce(c.Linux.Overhead, more)
	if err := m.UpdateResources(t.Context(), p.ID, &cri.LinuxContainerResources{CpuShares: 20}, nil); err != nil {
		t.Fatal(err)
	}
	inForce(&cri.LinuxContainerResources{CpuShares: 20}, more)
	for field, args := range map[string][2]*cri.LinuxContainerResources{"overhead": {{CpuShares: 1}, more}, "resources": {more, {CpuShares: 1}}} {
		if err := m.UpdateResources(t.Context(), p.ID, args[0], args[1]); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), ": "+field+".cpu_shares") {
			t.Errorf("%s: %v", field, err)
		}
	}
	bad := podConfig("bad")
	bad.Linux.Overhead = &cri.LinuxContainerResources{CpuShares: 1}
	if _, err := m.RunPod(t.Context(), bad, ""); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "linux.overhead.cpu_shares") {
		t.Errorf("at the start: %v", err)
	}
	b.halt()
	m = b.start()
	inForce(&cri.LinuxContainerResources{CpuShares: 20}, more)
	again, err := m.RunPod(t.Context(), c, "")
	if err != nil || again != p.ID {
		t.Errorf("the request that it was made of: %q, %v", again, err)
	}
	if err := m.Stop(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if err := m.UpdateResources(t.Context(), p.ID, nil, more); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("stopped: %v", err)
	}
	mustRemove(t, m, p.ID)
	if err := m.UpdateResources(t.Context(), p.ID, nil, more); !errdefs.IsNotFound(err) {
		t.Errorf("removed: %v", err)
	}
}

func TestUpdateResourcesThatCannotBeRecorded(t *testing.T) {
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
		t.Error("no error")
	}
	if got, err := m.Get(p.ID); err != nil || got.Resources != nil {
		t.Errorf("in force %v, %v", got.Resources, err)
	}
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, record, 0o600); err != nil {
		t.Fatal(err)
	}
	mustRemove(t, m, p.ID)
}
