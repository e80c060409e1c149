package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	blockIOOfPod = "blockio.resources.beta.kubernetes.io/pod"
	blockIOOf    = "blockio.resources.beta.kubernetes.io/container."
	rdtOfPod     = "rdt.resources.beta.kubernetes.io/pod"
)

// disk returns the path and the major:minor of a block device.
func disk(t *testing.T) (path, number string) {
	t.Helper()
	devices, err := os.ReadDir("/sys/block")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		path := "/dev/" + d.Name()
		var st unix.Stat_t
		size, err := os.ReadFile(filepath.Join("/sys/block", d.Name(), "size"))
		if err == nil && strings.TrimSpace(string(size)) != "0" && unix.Stat(path, &st) == nil {
			return path, fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
	}
	t.Skip("this machine has no disk")
	return "", ""
}

// classFiles configures classes of block I/O and RDT.
func (n *node) classFiles(t *testing.T, blockIO, rdt string) {
	t.Helper()
	n.writeFile(t, "config.toml.d/classes.toml", fmt.Sprintf("[container]\nblockio_config_file = %q\nrdt_config_file = %q\n",
		n.writeFile(t, "blockio.yaml", blockIO), n.writeFile(t, "rdt.yaml", rdt)))
}

func TestClassesOfBlockIO(t *testing.T) {
	path, number := disk(t)
	n := makeNode("blockio")
	n.Network = n.Bridge("csblockio", "10.117.0.0/16")
	n.classFiles(t, fmt.Sprintf(`classes:
  slow:
  - devices: [%q]
    throttleReadBps: 30M
    throttleWriteBps: 20M
    throttleReadIOPS: 3k
    throttleWriteIOPS: 2k
  slower:
  - devices: [%q]
    throttleReadBps: 1Mi
  light:
  - weight: 50
  absent:
  - devices: [/dev/criserver-no-such]
    throttleReadBps: 1Mi
`, path, path), "classes: {gold: {}}\n")
	n.start(t)
	config := podConfig("classes")
	config.Annotations = map[string]string{
		blockIOOfPod: "slow", blockIOOf + "named": "slower", blockIOOf + "none": "", blockIOOf + "light": "light",
		blockIOOf + "unknown": "fast", blockIOOf + "absent": "absent",
	}
	p := n.RunPod(t, config)
	rates := func(id, kind string) string {
		if !unifiedHost() {
			return n.cgroupFile(t, id, "blkio/blkio.throttle."+kind+"_device", "")
		}
		return n.cgroupFile(t, id, "", "io.max")
	}
	checkRate := func(id, v1Kind, v2Kind string, want int) {
		t.Helper()
		got := rates(id, v1Kind)
		if !unifiedHost() && got != number+" "+strconv.Itoa(want) || unifiedHost() && !strings.Contains(got, v2Kind+"="+strconv.Itoa(want)) {
			t.Errorf("rate %s: got %q, want %d", v1Kind, got, want)
		}
	}
	id := n.run(t, p, "any", "sleep", "1000")
	checkRate(id, "read_bps", "rbps", 30_000_000)
	checkRate(id, "write_bps", "wbps", 20_000_000)
	checkRate(id, "read_iops", "riops", 3000)
	checkRate(id, "write_iops", "wiops", 2000)
	n.mustUpdate(t, id, &limits{CpuShares: 55})
	checkRate(id, "read_bps", "rbps", 30_000_000)
	named := n.run(t, p, "named", "sleep", "1000")
	checkRate(named, "read_bps", "rbps", 1<<20)
	byAnnotation := containerConfig(p, "byannotation", busybox, "sleep", "1000")
	byAnnotation.Annotations = map[string]string{"io.kubernetes.cri.blockio-class": "slower"}
	checkRate(n.CreateContainer(t, p, byAnnotation), "read_bps", "rbps", 1<<20)
	if got := rates(n.run(t, p, "none", "sleep", "1000"), "read_bps"); got != "" {
		t.Errorf("rates of a container without a class: got %q, want none", got)
	}
	n.run(t, p, "light", "true") // also without a scheduler that supports weights

	for name, code := range map[string]codes.Code{"unknown": codes.InvalidArgument, "absent": codes.FailedPrecondition} {
		_, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: containerConfig(p, name, busybox, "true"), SandboxConfig: p.Config})
		if status.Code(err) != code || !strings.Contains(err.Error(), blockIOOf+name) {
			t.Errorf("class %s: got error %v, want %s", name, err, code)
		}
	}
	// A change of the file applies to new containers.
	n.classFiles(t, fmt.Sprintf("classes:\n  slower:\n  - devices: [%q]\n    throttleReadBps: 2Mi\n", path), "classes: {}\n")
	byAnnotation.Metadata.Name = "later"
	checkRate(n.CreateContainer(t, p, byAnnotation), "read_bps", "rbps", 2<<20)
	checkRate(named, "read_bps", "rbps", 1<<20)
}

func TestRDTIsRefusedWithoutSupport(t *testing.T) {
	if _, err := os.Stat("/sys/fs/resctrl/schemata"); err == nil {
		t.Skip("this test needs a machine without RDT")
	}
	n := makeNode("rdt")
	n.Network = n.Bridge("csrdt", "10.118.0.0/16")
	n.classFiles(t, "classes: {}\n", "classes: {gold: {l3CacheSchema: 'L3:0=ff'}}\n")
	n.start(t)
	n.run(t, n.RunPod(t, podConfig("without")), "c", "true")
	for class, code := range map[string]codes.Code{"gold": codes.FailedPrecondition, "brass": codes.InvalidArgument} {
		config := podConfig(class)
		config.Annotations = map[string]string{rdtOfPod: class}
		p := n.RunPod(t, config)
		_, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: containerConfig(p, "c", busybox, "true"), SandboxConfig: p.Config})
		if status.Code(err) != code || !strings.Contains(err.Error(), rdtOfPod) {
			t.Errorf("class %s: got error %v, want %s", class, err, code)
		}
	}
}

func TestInvalidClassesPreventStart(t *testing.T) {
	n := makeNode("badclass")
	n.classFiles(t, "classes:\n  a:\n  - weight: 5\n", "partitions: {}\n")
	err := n.Start(t.Context())
	if err == nil {
		t.Error("the daemon starts with invalid classes")
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	} else if !strings.Contains(err.Error(), "container.blockio_config_file") || !strings.Contains(err.Error(), "container.rdt_config_file") {
		t.Errorf("start with invalid classes: got error %v, want both keys of the configuration", err)
	}
}
