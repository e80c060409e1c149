package sandbox

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// hostVeth returns the name of the pod's veth on the host, from the CNI result.
func hostVeth(t *testing.T, p *Pod) string {
	t.Helper()
	var r types100.Result
	if err := json.Unmarshal(p.CNIResult, &r); err != nil {
		t.Fatal(err)
	}
	for _, i := range r.Interfaces {
		if strings.HasPrefix(i.Name, "veth") {
			return i.Name
		}
	}
	t.Fatalf("there is no veth in %s", p.CNIResult)
	return ""
}

// TestCheck checks pods with the built-in bridge and with the CNI plugin. Each must accept the pods
// that the other one has attached, and must find damage.
func TestCheck(t *testing.T) {
	damages := map[string]func(t *testing.T, p *Pod, leases string) *exec.Cmd{
		"none": func(*testing.T, *Pod, string) *exec.Cmd { return exec.Command("true") },
		"no veth": func(t *testing.T, p *Pod, _ string) *exec.Cmd {
			return exec.Command("ip", "link", "del", hostVeth(t, p))
		},
		"no address": func(_ *testing.T, p *Pod, _ string) *exec.Cmd {
			return exec.Command("nsenter", "--net="+p.Namespaces.Net, "ip", "addr", "del", p.IPs[0].String()+"/16", "dev", "eth0")
		},
		"no lease": func(_ *testing.T, p *Pod, leases string) *exec.Cmd {
			return exec.Command("rm", filepath.Join(leases, "criserver", p.IPs[0].String()))
		},
	}
	for name, damage := range damages {
		for _, created := range []bool{false, true} {
			for _, checked := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/created by processes=%t/checked=%t", name, created, checked), func(t *testing.T) {
					b, leases := realBed(t, "nftables")
					b.cfg.CNI.NoBuiltin = created
					m := b.start()
					c := podConfig("a")
					c.PortMappings = []*cri.PortMapping{{HostPort: 18080, ContainerPort: 80}}
					p := mustRun(t, m, c)
					b.halt()
					if out, err := damage(t, p, leases).CombinedOutput(); err != nil {
						t.Fatalf("%v: %s", err, out)
					}
					b.cfg.CNI.NoBuiltin = checked
					m = b.recovered()
					m.checkNetworks(t.Context())
					q, err := m.Get(p.ID)
					// The CNI plugin accepts a pod that still has one of several leases. If the plugin has
					// attached and masquerades the pod, it also checks the pod when the built-in bridge is enabled.
					ok := name == "none" || name == "no lease" && (checked || created)
					if err != nil || !q.Ready || (q.NetworkFault == "") != ok {
						t.Errorf("got ready %t, network fault %q, %v", q.Ready, q.NetworkFault, err)
					}
					mustRemove(t, m, p.ID)
				})
			}
		}
	}
}

func TestCNIVersions(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for _, noBuiltin := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/processes=%t", version, noBuiltin), func(t *testing.T) {
				b, leases := realBed(t, "nftables")
				b.cfg.CNI.NoBuiltin = noBuiltin
				conf := exampleConf(t, "nftables", "crisbxt0", leases)
				b.writeConf("10-test.conflist", strings.Replace(conf, `"cniVersion": "1.1.0"`, fmt.Sprintf(`"cniVersion": %q`, version), 1))
				m := b.start()
				c := podConfig("a")
				c.PortMappings = []*cri.PortMapping{{HostPort: 18080, ContainerPort: 80}}
				p := mustRun(t, m, c)
				var r struct{ CNIVersion string }
				if err := json.Unmarshal(p.CNIResult, &r); err != nil || r.CNIVersion != version || len(p.IPs) != 2 {
					t.Errorf("got version %q, addresses %v, %v", r.CNIVersion, p.IPs, err)
				}
				serve(t, p, 80)
				if err := dialHello("127.0.0.1:18080"); err != nil {
					t.Error(err)
				}
				mustRemove(t, m, p.ID)
			})
		}
	}
}

// TestUnsupportedCNIVersion checks that the caller gets the reason why the network is not ready.
func TestUnsupportedCNIVersion(t *testing.T) {
	b, leases := realBed(t, "nftables")
	conf := exampleConf(t, "nftables", "crisbxt0", leases)
	b.writeConf("10-test.conflist", strings.Replace(conf, `"cniVersion": "1.1.0"`, `"cniVersion": "9.0.0"`, 1))
	m := b.start()
	if _, err := m.RunPod(t.Context(), podConfig("a"), ""); err == nil || !strings.Contains(err.Error(), "plugin version does not allow STATUS") {
		t.Errorf("got error %v", err)
	}
}

func TestCheckAfterRestart(t *testing.T) {
	b, plugin := manyBed(t)
	m := b.start()
	good, bad := mustRun(t, m, asking("good", "one")), mustRun(t, m, podConfig("bad"))
	if n := plugin.calls("CHECK"); n != 0 {
		t.Errorf("got %d CHECK of pods that this daemon created", n)
	}
	if err := m.Stop(t.Context(), good.ID); err != nil {
		t.Fatal(err)
	}
	b.halt()
	plugin.fail("CHECK", 1)
	m = b.start()
	eventually(t, "network fault with the error of the plugin", func() bool {
		p, err := m.Get(bad.ID)
		return err == nil && p.Ready && strings.Contains(p.NetworkFault, "failure on command") && strings.Contains(p.NetworkFault, `"fake"`)
	})
	if n := plugin.calls("CHECK"); n != 1 {
		t.Errorf("got %d CHECK, want one for the pod that is ready", n)
	}
	b.halt()
	m = b.start()
	eventually(t, "CHECK by the next daemon", func() bool { return plugin.calls("CHECK") == 2 })
	if p, err := m.Get(bad.ID); err != nil || p.NetworkFault != "" {
		t.Errorf("after a successful CHECK: got %+v, %v", p, err)
	}
	mustRemove(t, m, good.ID, bad.ID)
}

func TestCommandsOfCNIVersions(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0"} {
		t.Run(version, func(t *testing.T) {
			b, plugin := fakeBed(t)
			b.writeConf("10-test.conflist", strings.Replace(fakeConf, "1.1.0", version, 1))
			m := b.start()
			p := mustRun(t, m, podConfig("a"))
			b.halt()
			m = b.start()
			if version != "0.3.1" {
				eventually(t, "CHECK", func() bool { return plugin.calls("CHECK") == 1 })
			}
			mustRemove(t, m, p.ID)
			if got, err := m.Get(p.ID); err == nil {
				t.Errorf("removed pod: got %+v", got)
			}
			if s, g := plugin.calls("STATUS"), plugin.calls("GC"); s+g != 0 || version == "0.3.1" && plugin.calls("CHECK") != 0 {
				t.Errorf("version %s: got %d STATUS, %d GC, %d CHECK", version, s, g, plugin.calls("CHECK"))
			}
		})
	}
}
