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

// hostEnd returns the host's end of a pod's pair by its CNI result.
func hostEnd(t *testing.T, p *Pod) string {
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
	t.Fatalf("no host end in %s", p.CNIResult)
	return ""
}

// TestRealCheck has either way find good what the other made, and damage bad.
func TestRealCheck(t *testing.T) {
	damages := map[string]func(t *testing.T, p *Pod, leases string) *exec.Cmd{
		"none": func(*testing.T, *Pod, string) *exec.Cmd { return exec.Command("true") },
		"off bridge": func(t *testing.T, p *Pod, _ string) *exec.Cmd {
			return exec.Command("ip", "link", "del", hostEnd(t, p))
		},
		"address": func(_ *testing.T, p *Pod, _ string) *exec.Cmd {
			return exec.Command("nsenter", "--net="+p.Namespaces.Net, "ip", "addr", "del", p.IPs[0].String()+"/16", "dev", "eth0")
		},
		"lease": func(_ *testing.T, p *Pod, leases string) *exec.Cmd {
			return exec.Command("rm", filepath.Join(leases, "criserver", p.IPs[0].String()))
		},
	}
	for name, damage := range damages {
		for _, made := range []bool{false, true} {
			for _, checked := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/made by processes=%t/checked=%t", name, made, checked), func(t *testing.T) {
					b, leases := realBed(t, "nftables")
					b.cfg.CNI.NoBuiltin = made
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
					// The plugin, which has to be asked also when it masquerades, is
					// content with one lease of several.
					sound := name == "none" || name == "lease" && (checked || made)
					if err != nil || !q.Ready || (q.NetworkFault == "") != sound {
						t.Errorf("ready %t, fault %q, %v", q.Ready, q.NetworkFault, err)
					}
					mustRemove(t, m, p.ID)
				})
			}
		}
	}
}

func TestEachVersionOfCNI(t *testing.T) {
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
					t.Errorf("version %q, addresses %v, %v", r.CNIVersion, p.IPs, err)
				}
				serve(t, p, 80)
				if err := ask("127.0.0.1:18080"); err != nil {
					t.Error(err)
				}
				mustRemove(t, m, p.ID)
			})
		}
	}
}

// TestAVersionThatAPluginDoesNotKnow checks that the caller gets the reason why the
// network is not ready.
func TestAVersionThatAPluginDoesNotKnow(t *testing.T) {
	b, leases := realBed(t, "nftables")
	conf := exampleConf(t, "nftables", "crisbxt0", leases)
	b.writeConf("10-test.conflist", strings.Replace(conf, `"cniVersion": "1.1.0"`, `"cniVersion": "9.0.0"`, 1))
	m := b.start()
	if _, err := m.RunPod(t.Context(), podConfig("a"), ""); err == nil || !strings.Contains(err.Error(), "plugin version does not allow STATUS") {
		t.Errorf("got %v", err)
	}
}

func TestCheckAfterRestart(t *testing.T) {
	b, plugin := manyBed(t)
	m := b.start()
	good, bad := mustRun(t, m, asking("good", "one")), mustRun(t, m, podConfig("bad"))
	if n := plugin.calls("CHECK"); n != 0 {
		t.Errorf("%d CHECK of pods just made", n)
	}
	if err := m.Stop(t.Context(), good.ID); err != nil {
		t.Fatal(err)
	}
	b.halt()
	plugin.fail("CHECK", 1)
	m = b.start()
	eventually(t, "the plugin's word is shown", func() bool {
		p, err := m.Get(bad.ID)
		return err == nil && p.Ready && strings.Contains(p.NetworkFault, "told to fail") && strings.Contains(p.NetworkFault, `"fake"`)
	})
	if n := plugin.calls("CHECK"); n != 1 {
		t.Errorf("%d CHECK, also of a stopped pod", n)
	}
	b.halt()
	m = b.start()
	eventually(t, "the next daemon asks again", func() bool { return plugin.calls("CHECK") == 2 })
	if p, err := m.Get(bad.ID); err != nil || p.NetworkFault != "" {
		t.Errorf("%+v, %v", p, err)
	}
	mustRemove(t, m, good.ID, bad.ID)
}

func TestOldVersionsAreNotAskedWhatTheyDoNotKnow(t *testing.T) {
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
				t.Errorf("%+v", got)
			}
			if s, g := plugin.calls("STATUS"), plugin.calls("GC"); s+g != 0 || version == "0.3.1" && plugin.calls("CHECK") != 0 {
				t.Errorf("%d STATUS, %d GC, %d CHECK", s, g, plugin.calls("CHECK"))
			}
		})
	}
}
