package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/qos"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// resctrl makes what looks like a node with RDT, and a file of classes.
func resctrl(t *testing.T) qos.RDT {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"schemata": "L3:0=fff\n", "rdt.yaml": "classes: {gold: {l3CacheSchema: 'L3:0=ff', memBwSchema: 'MB:0=70'}}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return qos.RDT{File: filepath.Join(dir, "rdt.yaml"), Root: dir}
}

func TestClassesReachTheSpec(t *testing.T) {
	m := &Manager{cfg: Config{RDT: resctrl(t)}}
	c := &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "c"}}
	p := &cri.PodSandboxConfig{Annotations: map[string]string{"rdt.resources.beta.kubernetes.io/container.c": "gold"}}
	classes, err := m.classesOf(c, p)
	if err != nil {
		t.Fatal(err)
	}
	weight := uint16(50)
	res, err := oci.NewBuilder(oci.Host{}, oci.Defaults{}).Build(oci.Input{
		Args: []string{"x"}, Cwd: "/", RootFS: "/r", RDT: classes.rdt, BlockIO: &specs.LinuxBlockIO{Weight: &weight},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := res.Spec.Linux.IntelRdt; r == nil || r.ClosID != "gold" || r.L3CacheSchema != "L3:0=ff" || r.MemBwSchema != "MB:0=70" {
		t.Errorf("RDT in the spec: %+v", r)
	}
	if b := res.Spec.Linux.Resources.BlockIO; b == nil || *b.Weight != 50 {
		t.Errorf("block I/O in the spec: %+v", b)
	}
	c.Annotations = map[string]string{"io.kubernetes.cri.rdt-class": "none"}
	if _, err := m.classesOf(c, p); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `annotation "io.kubernetes.cri.rdt-class"`) {
		t.Errorf("a class that does not exist: %v", err)
	}
	p.Annotations["blockio.resources.beta.kubernetes.io/pod"] = "x"
	if _, err := m.classesOf(c, p); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "blockio.resources") {
		t.Errorf("where there are no classes: %v", err)
	}
}

// noWeights are cgroups of a kernel without an I/O scheduler that weighs.
type noWeights struct{ Cgroups }

func (noWeights) WeighsBlockIO(string) bool { return false }

func TestWeightsAreDroppedWhereNothingWeighs(t *testing.T) {
	weight := uint16(50)
	rates := []specs.LinuxThrottleDevice{{Rate: 7}}
	has := &specs.LinuxBlockIO{Weight: &weight, ThrottleReadBpsDevice: rates}
	m := &Manager{cfg: Config{Cgroups: noWeights{}}}
	c := &container{id: "c", rec: &record{}}
	got := m.blockIO(c, &plan{classes: classes{blockIO: has}})
	if got.Weight != nil || len(got.ThrottleReadBpsDevice) != 1 || has.Weight == nil {
		t.Errorf("got %+v of %+v", got, has)
	}
	if got := m.blockIO(c, &plan{}); got != nil {
		t.Errorf("of nothing: %+v", got)
	}
}
