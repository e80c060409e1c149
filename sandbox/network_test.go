package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/podfiles"
	"github.com/criserver/criserver/sandbox/podspec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// interfaces returns the interfaces of all calls of a command, in order.
func (p fakePlugin) interfaces(command string) string {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, "calls"))
	if err != nil {
		p.t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == command {
			out = append(out, f[3])
		}
	}
	return strings.Join(out, " ")
}

// stdin returns a member of the configuration in the last call of a command.
func (p fakePlugin) stdin(command, member string) string {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, "stdin-"+command))
	if err != nil {
		p.t.Fatal(err)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		p.t.Fatalf("%v: %s", err, b)
	}
	return string(m[member])
}

// manyBed returns a testbed with two networks in addition to the default network.
func manyBed(t *testing.T) (*bed, fakePlugin) {
	t.Helper()
	b, plugin := fakeBed(t)
	b.cfg.CNI.Additional = []string{"one", "two"}
	b.writeConf("01-one.conflist", `{"cniVersion":"1.1.0","name":"one","plugins":[{"type":"fake","capabilities":{"mac":true,"ips":true}}]}`)
	b.writeConf("20-two.conflist", `{"cniVersion":"1.0.0","name":"two","plugins":[{"type":"fake"}]}`)
	return b, plugin
}

// asking returns a request for additional networks.
func asking(name, networks string) *cri.PodSandboxConfig {
	c := podConfig(name)
	c.Annotations = map[string]string{podspec.NetworksAnnotation: networks}
	return c
}

func TestSeveralNetworks(t *testing.T) {
	b, plugin := manyBed(t)
	m := b.start()
	p := mustRun(t, m, asking("a", "one, two@stor0"))
	if got := plugin.interfaces("ADD"); got != "eth0 net1 stor0" {
		t.Errorf("got ADD in the order %s", got)
	}
	if len(p.IPs) != 2 || len(p.Interfaces) != 2 || p.Interfaces[0].Network != "one" || !strings.Contains(string(p.Interfaces[1].Result), "stor0") {
		t.Errorf("got %+v", p)
	}
	b.halt()
	// The record of the pod has the configurations, so the files are not needed.
	for _, name := range []string{"01-one.conflist", "20-two.conflist", "10-test.conflist"} {
		if err := os.Remove(filepath.Join(b.cfg.CNI.ConfDirs[0], name)); err != nil {
			t.Fatal(err)
		}
	}
	m = b.start()
	if q, err := m.Get(p.ID); err != nil || !q.Ready || mustJSON(t, q.Interfaces) != mustJSON(t, p.Interfaces) {
		t.Errorf("after the restart: got %+v, %v", q, err)
	}
	mustRemove(t, m, p.ID)
	if got := plugin.interfaces("DEL"); got != "stor0 net1 eth0" {
		t.Errorf("got DEL in the order %s", got)
	}
}

func TestInterfaceCapabilities(t *testing.T) {
	b, plugin := manyBed(t)
	m := b.start()
	c := asking("a", `[{"name":"one","interface":"data","mac":"02:00:00:00:00:05","ips":["10.5.0.9/24","fd05::9"]}]`)
	c.PortMappings = []*cri.PortMapping{{HostPort: 80, ContainerPort: 80}}
	p := mustRun(t, m, c)
	if got := plugin.stdin("ADD", "runtimeConfig"); got != `{"ips":["10.5.0.9/24","fd05::9"],"mac":"02:00:00:00:00:05"}` {
		t.Errorf("got runtimeConfig %s", got)
	}
	mustRemove(t, m, p.ID)
	// A request for a capability that the network does not have must be refused.
	_, err := m.RunPod(t.Context(), asking("b", `[{"name":"two","mac":"02:00:00:00:00:05"}]`), "")
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `"mac"`) {
		t.Errorf("mac without the capability: got error %v", err)
	}
}

func TestRollbackAfterFailedInterface(t *testing.T) {
	b, plugin := manyBed(t)
	b.writeConf("20-two.conflist", `{"cniVersion":"1.0.0","name":"two","plugins":[{"type":"other"}]}`)
	m := b.start()
	if _, err := m.RunPod(t.Context(), asking("a", "one,two"), ""); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("missing plugin: got error %v", err)
	}
	if n := plugin.calls("ADD"); n != 0 {
		t.Errorf("got %d ADD before all plugins were found", n)
	}
	script := "#!/bin/sh\n[ $CNI_COMMAND = ADD ] && { echo no >&2; exit 1; }\nexit 0\n"
	if err := os.WriteFile(filepath.Join(plugin.dir, "other"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := m.RunPod(t.Context(), asking("a", "one,two"), ""); err == nil || !strings.Contains(err.Error(), `network "two"`) {
		t.Errorf("error %v does not name the network", err)
	}
	if got := plugin.interfaces("DEL"); got != "net1 eth0" {
		t.Errorf("got DEL in the order %s", got)
	}
	b.checkClean()
}

func TestAdditionalNetworkWithoutConfiguration(t *testing.T) {
	b, _ := fakeBed(t)
	b.cfg.CNI.Additional = []string{"storage"}
	m := b.start()
	if _, err := m.RunPod(t.Context(), asking("a", "storage"), ""); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), `"storage"`) {
		t.Errorf("got error %v", err)
	}
	mustRemove(t, m, mustRun(t, m, podConfig("b")).ID)
	// The network is used when its configuration exists.
	b.writeConf("50-storage.conflist", `{"cniVersion":"1.0.0","name":"storage","plugins":[{"type":"fake"}]}`)
	eventually(t, "load of the network", func() bool {
		id, err := m.RunPod(t.Context(), asking("a", "storage"), "")
		if err != nil {
			return false
		}
		mustRemove(t, m, id)
		return true
	})
}

func TestPodWithoutNetwork(t *testing.T) {
	b, plugin := fakeBed(t)
	b.cfg.CNI.BinDirs = append(b.cfg.CNI.BinDirs, realPlugins(t))
	b.cfg.CNI.Additional = []string{"none"}
	b.writeConf("05-none.conflist", `{"cniVersion":"1.0.0","name":"none","plugins":[{"type":"loopback"}]}`)
	m := b.start()
	c := podConfig("a")
	c.Annotations = map[string]string{podspec.DefaultNetworkAnnotation: "none"}
	p := mustRun(t, m, c)
	if len(p.IPs) != 0 || plugin.calls("ADD") != 0 {
		t.Errorf("got addresses %v and %d ADD, want none", p.IPs, plugin.calls("ADD"))
	}
	inNetNS(t, p.Namespaces.Net, func() error {
		dev, err := os.ReadFile("/proc/thread-self/net/dev")
		if n := strings.Count(string(dev), ":"); n != 1 {
			t.Errorf("got more interfaces than lo:\n%s", dev)
		}
		return err
	})
	if got, err := os.ReadFile(p.Hosts); err != nil || string(got) != podfiles.LocalHosts {
		t.Errorf("got hosts %q, %v", got, err)
	}
	mustRemove(t, m, p.ID)
}

// TestBandwidthOfNetwork sets rates in the configuration of the network, for pods that request no rates.
func TestBandwidthOfNetwork(t *testing.T) {
	for _, noBuiltin := range []bool{false, true} {
		t.Run(fmt.Sprintf("noBuiltin=%t", noBuiltin), func(t *testing.T) {
			needRoot(t)
			leases := t.TempDir()
			b := newBed(t, fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bw","plugins":[
{"type":"bridge","bridge":"crisbxt1","isGateway":true,"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.205.0.0/16"}]]}},
{"type":"bandwidth","ingressRate":1000000,"ingressBurst":1000000,"egressRate":2000000,"egressBurst":1000000}]}`, leases), realPlugins(t))
			b.cfg.CNI.NoBuiltin = noBuiltin
			t.Cleanup(func() {
				checkHostClean(t, filepath.Join(leases, "bw"))
				_ = exec.Command("ip", "link", "del", "crisbxt1").Run()
			})
			m := b.start()
			p := mustRun(t, m, podConfig("a"))
			var result struct{ Interfaces []struct{ Name string } }
			if err := json.Unmarshal(p.CNIResult, &result); err != nil || len(result.Interfaces) < 2 {
				t.Fatalf("%s, %v", p.CNIResult, err)
			}
			for _, want := range []struct{ dev, rate string }{{result.Interfaces[1].Name, "rate 1Mbit"}, {result.Interfaces[len(result.Interfaces)-1].Name, "rate 2Mbit"}} {
				out, err := exec.Command("tc", "qdisc", "show", "dev", want.dev).CombinedOutput()
				if err != nil || !strings.Contains(string(out), want.rate) {
					t.Errorf("%s does not have %q: got %s, %v", want.dev, want.rate, out, err)
				}
			}
			mustRemove(t, m, p.ID)
			out, err := exec.Command("ip", "-o", "link", "show", "type", "ifb").CombinedOutput()
			if err != nil || len(out) > 0 {
				t.Errorf("ifb interfaces remain: %s, %v", out, err)
			}
		})
	}
}
