package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/patience"
)

// subnetConf returns the configuration of a bridge with masquerading and host ports.
func subnetConf(leases, subnet string) string {
	c := bridgeConf(leases, `,"ipMasq":true`, `,"ranges":[[{"subnet":"`+subnet+`"}]]`)
	return strings.Replace(c, "}}]}", `}},{"type":"portmap","capabilities":{"portMappings":true}}]}`, 1)
}

// table returns the rules of a table of the daemon, or "".
func table(t *testing.T, kind string) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "table", "inet", "criserver_"+kind+"_br").CombinedOutput()
	if err != nil {
		return ""
	}
	return string(out)
}

// masquerades returns a function that reports whether exactly the given subnets are masqueraded.
func masquerades(t *testing.T, subnets ...string) func() bool {
	return func() bool {
		rules := table(t, "masquerade")
		for _, s := range subnets {
			if !strings.Contains(rules, "ip saddr "+s+" ") {
				return false
			}
		}
		return strings.Count(rules, "saddr") == len(subnets) && (rules == "") == (len(subnets) == 0)
	}
}

func routeLocalnet(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/ipv4/conf/crisbxt2/route_localnet")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

const first, second = "10.205.0.0/24", "10.206.0.0/24"

// TestMasqueradingOfPods changes the subnet and removes the network while pods are attached. The
// subnets of attached pods must stay masqueraded.
func TestMasqueradingOfPods(t *testing.T) {
	b, leases := bridgeBed(t, "", "")
	b.writeConf("10-test.conflist", subnetConf(leases, first))
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	b.writeConf("10-test.conflist", subnetConf(leases, second))
	eventually(t, "masquerading of both subnets", masquerades(t, first, second))
	b.halt()
	m = b.start()
	awaitNetwork(t, m)
	eventually(t, "masquerading of both subnets after a restart", masquerades(t, first, second))
	q := mustRun(t, m, podConfig("b"))
	if err := exec.Command("nft", "flush", "ruleset").Run(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "masquerading of both subnets after a flush", masquerades(t, first, second))
	mustRemove(t, m, p.ID)
	eventually(t, "end of masquerading of the subnet without pods", masquerades(t, second))
	if err := os.Remove(filepath.Join(b.cfg.CNI.ConfDirs[0], "10-test.conflist")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "network status without a configuration", func() bool { return m.NetworkStatus() != nil })
	b.halt()
	m = b.start()
	time.Sleep(500 * time.Millisecond)
	if !masquerades(t, second)() {
		t.Errorf("the subnet of a pod is no longer masqueraded:\n%s", table(t, "masquerade"))
	}
	mustRemove(t, m, q.ID)
	eventually(t, "removal of the table after the last pod", masquerades(t))
}

// TestTablesOfRemovedNetwork removes the configuration of a network. The daemon must delete its
// tables, also after a restart, and must close the loopback addresses of the host.
func TestTablesOfRemovedNetwork(t *testing.T) {
	for _, restart := range []bool{false, true} {
		b, leases := bridgeBed(t, "", "")
		b.writeConf("10-test.conflist", subnetConf(leases, first))
		const foreign = "criserver_masquerade_foreign"
		if err := exec.Command("nft", "add", "table", "inet", foreign).Run(); err != nil {
			t.Fatal(err)
		}
		m := b.start()
		p := mustRun(t, m, webPod("a", 18080))
		if got := routeLocalnet(t); got != "1" {
			t.Errorf("got route_localnet %s, want 1", got)
		}
		mustRemove(t, m, p.ID)
		if restart {
			b.halt()
		}
		if err := os.Remove(filepath.Join(b.cfg.CNI.ConfDirs[0], "10-test.conflist")); err != nil {
			t.Fatal(err)
		}
		if restart {
			b.start()
		}
		eventually(t, "removal of the tables and their files", func() bool {
			files, _ := os.ReadDir(filepath.Join(b.cfg.RunDir, "cni", "tables"))
			return table(t, "masquerade") == "" && table(t, "hostports") == "" && len(files) == 0
		})
		if got := routeLocalnet(t); got != "0" {
			t.Errorf("restart %t, no guard: got route_localnet %s, want 0", restart, got)
		}
		b.halt()
		if err := exec.Command("nft", "delete", "table", "inet", foreign).Run(); err != nil {
			t.Errorf("delete the table of another daemon: %v", err)
		}
	}
}

// TestTablesOfUnreadableRecords checks that a pod whose record cannot be read keeps its rules.
func TestTablesOfUnreadableRecords(t *testing.T) {
	b, leases := bridgeBed(t, "", "")
	b.writeConf("10-test.conflist", subnetConf(leases, first))
	m := b.start()
	p := mustRun(t, m, webPod("a", 18080))
	b.halt()
	file := filepath.Join(b.cfg.RunDir, "pods", p.ID, recordFile)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.writeConf("10-test.conflist", subnetConf(leases, second))
	m = b.start()
	eventually(t, "masquerading of both subnets", masquerades(t, first, second))
	if err := os.Remove(filepath.Join(b.cfg.CNI.ConfDirs[0], "10-test.conflist")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "network status without a configuration", func() bool { return m.NetworkStatus() != nil })
	eventually(t, "end of masquerading of the subnet in the configuration", masquerades(t, first))
	if table(t, "hostports") == "" {
		t.Error("the table of host ports was deleted")
	}
	b.halt()
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	m = b.start()
	mustRemove(t, m, p.ID)
	eventually(t, "removal of the tables", func() bool { return table(t, "masquerade") == "" && table(t, "hostports") == "" })
}

// TestFlushedRulesAreRepaired measures for how long the loopback addresses of the host are without
// their guard after another program has flushed all rules.
func TestFlushedRulesAreRepaired(t *testing.T) {
	b, leases := bridgeBed(t, "", "")
	b.writeConf("10-test.conflist", subnetConf(leases, first))
	m := b.start()
	p := mustRun(t, m, webPod("a", 18080))
	for range 3 {
		if err := exec.Command("nft", "flush", "ruleset").Run(); err != nil {
			t.Fatal(err)
		}
		flushed := time.Now()
		eventually(t, "repair of the tables", func() bool {
			return strings.Contains(table(t, "hostports"), "guard") && masquerades(t, first)()
		})
		if took := time.Since(flushed); took > patience.For(10*time.Second) {
			t.Errorf("the guard was missing for %s", took)
		}
	}
	mustRemove(t, m, p.ID)
}

// TestLoopbackIsClosedWithoutGuard lets nft fail when the guard has to be repaired.
func TestLoopbackIsClosedWithoutGuard(t *testing.T) {
	dir := t.TempDir()
	real, err := exec.LookPath("nft")
	if err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken")
	script := "#!/bin/sh\n[ -e " + broken + " ] && { echo failure on command >&2; exit 1; }\nexec " + real + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "nft"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	b, leases := bridgeBed(t, "", "")
	b.writeConf("10-test.conflist", subnetConf(leases, first))
	m := b.start()
	p := mustRun(t, m, webPod("a", 18080))
	serve(t, p, 80)
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(real, "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, "end of route_localnet", func() bool { return routeLocalnet(t) == "0" })
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	eventually(t, "repair of the host ports", func() bool { return routeLocalnet(t) == "1" && dialHello("127.0.0.1:18080") == nil })
	mustRemove(t, m, p.ID)
}
