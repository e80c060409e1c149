package system

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

func (n *node) setPodCIDR(t *testing.T, cidrs string) error {
	t.Helper()
	_, err := n.RuntimeService.UpdateRuntimeConfig(t.Context(), &cri.UpdateRuntimeConfigRequest{
		RuntimeConfig: &cri.RuntimeConfig{NetworkConfig: &cri.NetworkConfig{PodCidr: cidrs}},
	})
	return err
}

// networkReady waits until the condition NetworkReady has the value want.
func (n *node) networkReady(t *testing.T, want bool) {
	t.Helper()
	for end := time.Now().Add(harness.Patience(30 * time.Second)); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range st.GetStatus().GetConditions() {
			if c.GetType() == cri.NetworkReady && c.GetStatus() == want {
				return
			}
		}
	}
	t.Fatalf("NetworkReady is not %v at the deadline", want)
}

// configureTemplate configures the CNI template of the examples with the bridge and leases of the
// node.
func (n *node) configureTemplate(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/examples/cni.template")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("cri0", name, `"criserver"`, `"`+name+`"`, "/run/criserver/ipam", filepath.Join(n.Dir, "leases")).Replace(string(b))
	n.writeFile(t, "config.toml.d/template.toml", fmt.Sprintf("[cni]\nconf_template = %q\n", n.writeFile(t, "cni.template", text)))
}

func TestPodCIDRCreatesNetwork(t *testing.T) {
	n := makeNode("podcidr")
	n.configureTemplate(t, "cspodcidr")
	n.start(t)
	n.networkReady(t, false)
	for _, bad := range []string{"nonsense", "10.110.0.0", "10.110.0.0/40", "10.110.0.0/24,", "10.110.0.0/24;fd00:110::/64"} {
		if err := n.setPodCIDR(t, bad); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "runtime_config.network_config.pod_cidr") {
			t.Errorf("pod_cidr %q: got error %v, want InvalidArgument with the field", bad, err)
		}
	}
	if _, err := n.RuntimeService.UpdateRuntimeConfig(t.Context(), &cri.UpdateRuntimeConfigRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("request without runtime_config: got error %v, want InvalidArgument", err)
	}
	if err := n.setPodCIDR(t, ""); err != nil {
		t.Errorf("empty pod_cidr: got error %v, want none", err)
	}
	n.networkReady(t, false)
	if err := n.setPodCIDR(t, "10.110.3.0/24,fd00:110::/64"); err != nil {
		t.Fatalf("set the pod CIDR to 10.110.3.0/24,fd00:110::/64: %v", err)
	}
	n.networkReady(t, true)
	// The first pod creates the bridge and its rules.
	n.RemovePod(t, n.RunPod(t, podConfig("first")).ID)
	n.takeBaseline(t)
	p := n.RunPod(t, podConfig("cidr"))
	ips := n.podIPs(t, p.ID)
	if len(ips) != 2 {
		t.Fatalf("addresses of the pod: got %v, want two", ips)
	}
	for i, cidr := range []string{"10.110.3.0/24", "fd00:110::/64"} {
		if !netip.MustParsePrefix(cidr).Contains(netip.MustParseAddr(ips[i])) {
			t.Errorf("address %d of the pod: got %s, want one in %s", i, ips[i], cidr)
		}
	}
	id := n.run(t, p, "c", "sleep", "1000")
	if out := n.Exec(t, id, "ip", "route"); !strings.Contains(out, "default via 10.110.3.1") {
		t.Errorf("routes: got\n%s\nwant the default route via 10.110.3.1", out)
	}
	n.Kill()
	n.restart(t)
	n.networkReady(t, true)
	if err := n.setPodCIDR(t, "10.110.3.0/24,fd00:110::/64"); err != nil {
		t.Errorf("set the pod CIDR to 10.110.3.0/24,fd00:110::/64: %v", err)
	}
}

func TestPodCIDRKeepsOtherNetwork(t *testing.T) {
	n := makeNode("othercni")
	n.Network = n.Bridge("csothercni", "10.111.0.0/16")
	n.configureTemplate(t, "csnotused")
	n.start(t)
	if err := n.setPodCIDR(t, "10.112.0.0/16"); err != nil {
		t.Fatalf("set the pod CIDR to 10.112.0.0/16: %v", err)
	}
	files, err := os.ReadDir(filepath.Join(n.Dir, "cni"))
	if err != nil || len(files) != 1 {
		t.Errorf("CNI configuration files: got %v (error %v), want one", files, err)
	}
	ip := netip.MustParseAddr(n.podIPs(t, n.RunPod(t, podConfig("other")).ID)[0])
	if !netip.MustParsePrefix("10.111.0.0/16").Contains(ip) {
		t.Errorf("address of the pod: got %s, want one in 10.111.0.0/16", ip)
	}
}

func TestPodCIDRWithoutTemplateIsIgnored(t *testing.T) {
	n := newNode(t, "notemplate", 113)
	if err := n.setPodCIDR(t, "10.114.0.0/16"); err != nil {
		t.Errorf("set the pod CIDR to 10.114.0.0/16: %v", err)
	}
	if err := n.setPodCIDR(t, "x"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("pod_cidr \"x\": got error %v, want InvalidArgument", err)
	}
}

// podLimits returns the overhead and the resources in the verbose status of a pod.
func (n *node) podLimits(t *testing.T, id string) (overhead, resources *limits) {
	t.Helper()
	st, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ Overhead, Resources *limits }
	if err := json.Unmarshal([]byte(st.GetInfo()["info"]), &info); err != nil {
		t.Fatal(err)
	}
	return info.Overhead, info.Resources
}

func TestPodResources(t *testing.T) {
	n := newNode(t, "podres", 115)
	config := podConfig("podres")
	config.Linux.Overhead = &limits{CpuShares: 10, MemoryLimitInBytes: 8 << 20}
	config.Linux.Resources = &limits{CpuShares: 200, CpuQuota: 50000, CpuPeriod: 100000, MemoryLimitInBytes: 256 << 20}
	p := n.RunPod(t, config)
	id := n.run(t, p, "c", "sleep", "1000")
	expect := func(shares, memory int64) {
		t.Helper()
		o, r := n.podLimits(t, p.ID)
		if o.GetCpuShares() != shares || r.GetMemoryLimitInBytes() != memory {
			t.Errorf("verbose status: got overhead %v, resources %v, want CPU shares %d, memory limit %d", o, r, shares, memory)
		}
	}
	update := func(id string, overhead, resources *limits) error {
		_, err := n.RuntimeService.UpdatePodSandboxResources(t.Context(), &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: id, Overhead: overhead, Resources: resources})
		return err
	}
	expect(10, 256<<20)
	parent := filepath.Dir(n.cgroupOf(t, id))
	before := readCgroup(t, parent, "memory/memory.limit_in_bytes", "memory.max")
	if err := update(p.ID, &limits{CpuShares: 11}, &limits{MemoryLimitInBytes: 512 << 20}); err != nil {
		t.Fatalf("update the limits of the pod: %v", err)
	}
	if err := update(p.ID, nil, &limits{MemoryLimitInBytes: 768 << 20}); err != nil {
		t.Fatalf("update the limits of the pod: %v", err)
	}
	expect(11, 768<<20)
	if after := readCgroup(t, parent, "memory/memory.limit_in_bytes", "memory.max"); after != before {
		t.Errorf("memory limit in the cgroup of the pod: got %s, want %s as before the update", after, before)
	}
	n.Kill()
	n.restart(t)
	expect(11, 768<<20)
	for field, args := range map[string][2]*limits{
		"overhead.cpu_period 7":  {{CpuPeriod: 7}, nil},
		"resources.cpu_shares 1": {{CpuShares: 5}, {CpuShares: 1}},
		"resources.cpuset_cpus":  {nil, {CpusetCpus: "x"}},
	} {
		if err := update(p.ID, args[0], args[1]); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), field) {
			t.Errorf("update: got error %v, want InvalidArgument with %q", err, field)
		}
	}
	bad := podConfig("bad")
	bad.Linux.Resources = &limits{CpuShares: -4}
	if _, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: bad}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "linux.resources.cpu_shares -4") {
		t.Errorf("run a pod with CPU shares -4: got error %v, want InvalidArgument with the field", err)
	}
	expect(11, 768<<20)
	if _, err := n.RuntimeService.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.ID}); err != nil {
		t.Fatal(err)
	}
	for id, code := range map[string]codes.Code{p.ID: codes.FailedPrecondition, "no-such-pod": codes.NotFound, "": codes.InvalidArgument} {
		if err := update(id, nil, &limits{CpuShares: 5}); status.Code(err) != code {
			t.Errorf("update pod %q: got error %v, want %s", id, err, code)
		}
	}
}

// semanticVersion matches a semantic version. The kubelet shows other versions as "Unknown".
var semanticVersion = regexp.MustCompile(`^\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?$`)

// TestVersionStatusAndRuntimeConfig tests the first requests of the kubelet.
func TestVersionStatusAndRuntimeConfig(t *testing.T) {
	n := newNode(t, "first", 116)
	for _, version := range []string{"", "0.1.0", "v1", "v99"} {
		v, err := n.RuntimeService.Version(t.Context(), &cri.VersionRequest{Version: version})
		if err != nil || v.GetVersion() != "0.1.0" || v.GetRuntimeName() != "criserver" || !semanticVersion.MatchString(v.GetRuntimeVersion()) || v.GetRuntimeApiVersion() != "v1" {
			t.Errorf("version for %q: got %v (error %v), want version 0.1.0 and API version v1 of criserver", version, v, err)
		}
	}
	driver := strings.ToUpper(harness.CgroupDriver())
	c, err := n.RuntimeService.RuntimeConfig(t.Context(), &cri.RuntimeConfigRequest{})
	if err != nil || c.GetLinux() == nil || c.GetLinux().GetCgroupDriver().String() != driver {
		t.Errorf("runtime config: got %v (error %v), want the cgroup driver %s", c, err, driver)
	}
	st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(st.GetInfo()) != 0 {
		t.Errorf("info without verbose: got %v, want none", st.GetInfo())
	}
	if !st.GetFeatures().GetSupplementalGroupsPolicy() {
		t.Errorf("features: got %v, want supplemental_groups_policy", st.GetFeatures())
	}
	names := make(map[string]int)
	for _, h := range st.GetRuntimeHandlers() {
		names[h.GetName()]++
	}
	if names[""] != 1 || names["runc"] != 1 {
		t.Errorf("handlers in the status: got %v, want the default and runc", names)
	}
	for name, times := range names {
		if times != 1 {
			t.Errorf("entries of handler %q in the status: got %d, want 1", name, times)
		}
	}
}
