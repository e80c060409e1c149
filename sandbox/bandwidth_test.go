package sandbox

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

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
