package sandbox

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const portTable = "criserver_hostports_criserver"

func webPod(name string, port int32) *cri.PodSandboxConfig {
	c := podConfig(name)
	c.PortMappings = []*cri.PortMapping{{HostPort: port, ContainerPort: 80}}
	return c
}

func listTable(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "table", "inet", portTable).CombinedOutput()
	if err != nil {
		return ""
	}
	return string(out)
}

// TestHostPortsAreRepaired changes the table of host ports while no daemon runs, as another program
// or a daemon that died could. The next daemon must repair the table.
func TestHostPortsAreRepaired(t *testing.T) {
	damages := map[string][]string{
		"no tables":     {"flush", "ruleset"},
		"leftover port": {"add", "element", "inet", portTable, "all_ip", "{ tcp . 18081 comment \"pod removed\" : 10.88.0.99 . 80 }"},
		"missing port":  {"delete", "element", "inet", portTable, "all_ip", "{ tcp . 18080 }"},
		"no rules":      {"flush", "chain", "inet", portTable, "hostports"},
	}
	for name, args := range damages {
		t.Run(name, func(t *testing.T) {
			b, _ := realBed(t, "nftables")
			m := b.start()
			p := mustRun(t, m, webPod("a", 18080))
			serve(t, p, 80)
			if err := dialHello("127.0.0.1:18080"); err != nil {
				t.Fatal(err)
			}
			b.halt()
			if out, err := exec.Command("nft", args...).CombinedOutput(); err != nil {
				t.Fatalf("nft %q: %v: %s", args, err, out)
			}
			m = b.start()
			eventually(t, "repair of the table", func() bool {
				return dialHello("127.0.0.1:18080") == nil && !strings.Contains(listTable(t), "18081")
			})
			mustRemove(t, m, p.ID)
			if rules := listTable(t); strings.Contains(rules, p.ID) || strings.Contains(rules, "18080") {
				t.Errorf("rules of the pod remain:\n%s", rules)
			}
		})
	}
}

// TestHostPortsWithOtherImplementation creates host ports with the built-in portmap and deletes
// them with the CNI plugin, and the other way round.
func TestHostPortsWithOtherImplementation(t *testing.T) {
	for _, noBuiltin := range []bool{false, true} {
		t.Run(fmt.Sprintf("created by processes=%t", noBuiltin), func(t *testing.T) {
			b, _ := realBed(t, "nftables")
			b.cfg.CNI.NoBuiltin = noBuiltin
			m := b.start()
			p := mustRun(t, m, webPod("a", 18080))
			serve(t, p, 80)
			b.halt()
			b.cfg.CNI.NoBuiltin = !noBuiltin
			m = b.start()
			q := mustRun(t, m, webPod("b", 18081))
			serve(t, q, 80)
			for _, port := range []string{"18080", "18081"} {
				if err := dialHello("127.0.0.1:" + port); err != nil {
					t.Errorf("port %s: %v", port, err)
				}
			}
			mustRemove(t, m, p.ID)
			if err := dialHello("127.0.0.1:18080"); err == nil {
				t.Error("the host port of the removed pod still answers")
			}
			if err := dialHello("127.0.0.1:18081"); err != nil {
				t.Error(err)
			}
			mustRemove(t, m, q.ID)
		})
	}
}

func TestConcurrentHostPorts(t *testing.T) {
	b, _ := realBed(t, "nftables")
	m := b.start()
	const n = 12
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for range 3 {
				id, err := m.RunPod(t.Context(), webPod(fmt.Sprint("p", i), int32(19000+i)), "")
				if err != nil {
					t.Error(err)
					return
				}
				if rules := listTable(t); !strings.Contains(rules, id) {
					t.Errorf("there is no rule of pod %d", i)
				}
				mustRemove(t, m, id)
			}
		})
	}
	wg.Wait()
	if rules := listTable(t); strings.Contains(rules, "comment") {
		t.Errorf("rules remain:\n%s", rules)
	}
}

func TestHostPortInUse(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	web := func(name, ip string, protocol cri.Protocol) *cri.PodSandboxConfig {
		c := podConfig(name)
		c.PortMappings = []*cri.PortMapping{{Protocol: protocol, HostPort: 8080, ContainerPort: 80, HostIp: ip}}
		return c
	}
	p := mustRun(t, m, web("a", "", cri.Protocol_TCP))
	refused := func(m *Manager) {
		t.Helper()
		_, err := m.RunPod(t.Context(), web("b", "127.0.0.1", cri.Protocol_TCP), "")
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "8080/tcp") || !strings.Contains(err.Error(), p.ID) {
			t.Errorf("got error %v", err)
		}
	}
	refused(m)
	mustRun(t, m, web("udp", "", cri.Protocol_UDP))
	b.halt()
	m = b.start()
	refused(m)
	plugin.fail("DEL", 1)
	if err := m.Stop(t.Context(), p.ID); err == nil {
		t.Fatal("got no error")
	}
	refused(m) // the plugins may still have the mapping
	eventually(t, "release of the port", func() bool {
		_, err := m.RunPod(t.Context(), web("b", "127.0.0.1", cri.Protocol_TCP), "")
		return err == nil
	})
	plugin.fail("ADD", 1)
	for range 2 { // the first attempt fails and must release its port
		_, _ = m.RunPod(t.Context(), web("c", "10.0.0.1", cri.Protocol_TCP), "")
	}
	if n := len(m.List()); n != 4 {
		t.Errorf("got %d pods, want 4", n)
	}
	for _, p := range m.List() {
		mustRemove(t, m, p.ID)
	}
}

// TestHostPortsTurnedOff creates a pod with a host port, turns host ports off, and creates a pod with the same host
// port. Then it turns host ports on again.
func TestHostPortsTurnedOff(t *testing.T) {
	b, _ := realBed(t, "nftables")
	m := b.start()
	before := mustRun(t, m, webPod("before", 19080))
	serve(t, before, 80)
	const address = "127.0.0.1:19080"
	if err := dialHello(address); err != nil {
		t.Fatal(err)
	}
	b.halt()

	b.cfg.NoHostPorts = true
	m = b.start()
	if err := dialHello(address); err != nil {
		t.Errorf("host port of an existing pod: %v", err)
	}
	off := []*Pod{mustRun(t, m, webPod("off1", 19080)), mustRun(t, m, webPod("off2", 19080))}
	rules := listTable(t)
	if !strings.Contains(rules, before.ID) || strings.Contains(rules, off[0].ID) || strings.Contains(rules, off[1].ID) {
		t.Errorf("the table has other pods than %s:\n%s", before.ID, rules)
	}
	mustRemove(t, m, before.ID)
	if err := dialHello(address); err == nil {
		t.Error("the host port is mapped although host ports are turned off")
	}
	b.halt()

	b.cfg.NoHostPorts = false
	m = b.start()
	on := mustRun(t, m, webPod("on", 19080)) // the pods without a mapping have not reserved the port
	serve(t, on, 80)
	if err := dialHello(address); err != nil {
		t.Error(err)
	}
	mustRemove(t, m, off[0].ID, off[1].ID)
	if err := dialHello(address); err != nil {
		t.Errorf("after the removal of the pods without a mapping: %v", err)
	}
	mustRemove(t, m, on.ID)
}
