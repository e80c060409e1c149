package system

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

func TestPrimaryAddress(t *testing.T) {
	for name, tc := range map[string]struct {
		subnets []string
		first   string
		n       int
	}{
		"IPv4":       {[]string{"10.110.0.0/24"}, "10.110.0.", 1},
		"IPv6":       {[]string{"fd00:110::/64"}, "fd00:110::", 1},
		"IPv4 first": {[]string{"10.110.0.0/24", "fd00:110::/64"}, "10.110.0.", 2},
		"IPv6 first": {[]string{"fd00:110::/64", "10.110.0.0/24"}, "fd00:110::", 2},
	} {
		t.Run(name, func(t *testing.T) {
			n := makeNode("prim" + strings.ReplaceAll(name, " ", ""))
			n.Network = n.Bridge("csprimary", tc.subnets...)
			n.start(t)
			a, b := n.RunPod(t, podConfig("a")), n.RunPod(t, podConfig("b"))
			ips := n.podIPs(t, a.ID)
			if len(ips) != tc.n || !strings.HasPrefix(ips[0], tc.first) {
				t.Errorf("addresses: got %v, want %d, the first in %s", ips, tc.n, tc.first)
			}
			for _, ip := range ips {
				ping(t, n.netns(b), ip)
			}
			n.empty(t.Context()) // close reports errors
			command(t, "", "ip", "link", "del", "csprimary")
			n.takeBaseline(t)
		})
	}
}

// plugin writes a CNI plugin that is a shell script to a new directory.
func plugin(t *testing.T, n *node, name, script string) {
	t.Helper()
	dir := filepath.Join(n.Dir, "plugins")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	n.PluginDirs = []string{dir}
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nd="+dir+"\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestSeveralInterfacesInAResult tests a result with several interfaces, as a meta
// plugin returns it.
func TestSeveralInterfacesInAResult(t *testing.T) {
	n := makeNode("meta")
	plugin(t, n, "meta", `cat >/dev/null; [ $CNI_COMMAND = ADD ] && cat <<E
{"cniVersion":"1.0.0","interfaces":[{"name":"vethmeta"},{"name":"net1","sandbox":"$CNI_NETNS"},{"name":"eth0","sandbox":"$CNI_NETNS"}],
"ips":[{"address":"10.7.0.1/24","interface":0},{"address":"10.8.0.2/24","interface":1},{"address":"fd08::2/64","interface":1},
{"address":"10.9.0.2/24","interface":2},{"address":"fd09::2/64","interface":2}]}
E
exit 0`)
	n.Network = `{"cniVersion":"1.0.0","name":"meta","plugins":[{"type":"meta"}]}`
	n.start(t)
	if got := fmt.Sprint(n.podIPs(t, n.RunPod(t, podConfig("a")).ID)); got != "[10.9.0.2 fd09::2 10.8.0.2 fd08::2]" {
		t.Errorf("addresses: got %s, want those of eth0 first and none of the host", got)
	}
}

func (n *node) networkCondition(t *testing.T) *cri.RuntimeCondition {
	t.Helper()
	st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range st.GetStatus().GetConditions() {
		if c.GetType() == cri.NetworkReady {
			return c
		}
	}
	t.Fatal("status has no condition NetworkReady")
	return nil
}

// TestFailingPlugins tests a plugin that fails, hangs and recovers.
func TestFailingPlugins(t *testing.T) {
	n := makeNode("failing")
	// The plugin fails if the file refuse-COMMAND exists, and hangs if hang-COMMAND exists.
	plugin(t, n, "faulty", `cat >/dev/null; echo $CNI_COMMAND >>$d/../calls
while [ -e $d/../hang-$CNI_COMMAND ]; do sleep 0.05; done
if [ -e $d/../refuse-$CNI_COMMAND ]; then echo '{"cniVersion":"1.1.0","code":50,"msg":"injected fault"}'; exit 1; fi
[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.1.0","ips":[{"address":"10.9.0.2/24"}]}'
exit 0`)
	n.Network = `{"cniVersion":"1.1.0","name":"faulty","plugins":[{"type":"faulty"}]}`
	setFault := func(name string, on bool) {
		t.Helper()
		file := filepath.Join(n.Dir, name)
		if !on {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n.start(t)

	setFault("refuse-ADD", true)
	_, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: podConfig("refused")})
	if err == nil || !strings.Contains(err.Error(), "injected fault") || !strings.Contains(err.Error(), `network "faulty"`) {
		t.Errorf("run pod with a failing ADD: got error %v, want the message of the plugin", err)
	}
	setFault("refuse-ADD", false)
	if pods, _ := n.running(t); pods != 0 {
		t.Errorf("pods after a failed ADD: got %d, want 0", pods)
	}

	setFault("hang-ADD", true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = n.RuntimeService.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: podConfig("slow")})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("run pod with a hanging ADD: got error %v, want DeadlineExceeded", err)
	}
	// Meanwhile other requests work, for example for a pod that needs no plugin.
	host := podConfig("host")
	host.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
	n.RemovePod(t, n.RunPod(t, host).ID)
	setFault("hang-ADD", false)
	slow := n.RunPod(t, podConfig("slow")) // the repeated request joins the first one
	if calls, _ := os.ReadFile(filepath.Join(n.Dir, "calls")); strings.Count(string(calls), "ADD\n") != 3 {
		t.Errorf("calls of the plugin: got %q, want one ADD each for first, refused and slow", calls)
	}

	setFault("refuse-DEL", true)
	if _, err := n.RuntimeService.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: slow.ID}); err == nil || !strings.Contains(err.Error(), "injected fault") {
		t.Errorf("stop pod with a failing DEL: got error %v, want the message of the plugin", err)
	}
	st, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: slow.ID, Verbose: true})
	if err != nil || st.GetStatus().GetState() != cri.PodSandboxState_SANDBOX_NOTREADY || !strings.Contains(infoField(t, st.GetInfo()["info"], "notReadyReason"), "injected fault") {
		t.Errorf("status: got %v (error %v), want not ready with the message of the plugin", st, err)
	}
	setFault("refuse-DEL", false)
	n.RemovePod(t, slow.ID)

	// Status answers at once, however long the plugin takes.
	n.Kill()
	setFault("hang-STATUS", true)
	n.restart(t)
	n.networkCondition(t)
	setFault("refuse-STATUS", true)
	setFault("hang-STATUS", false)
	n.waitChecked(t)
	n.networkReady(t, false)
	if c := n.networkCondition(t); !strings.Contains(c.GetMessage(), "injected fault") || !strings.Contains(c.GetMessage(), "code 50") {
		t.Errorf("condition NetworkReady: got %v, want code 50 and the message of the plugin", c)
	}
	if _, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: podConfig("b")}); status.Code(err) != codes.Unavailable {
		t.Errorf("run pod while the network is not ready: got error %v, want Unavailable", err)
	}
	setFault("refuse-STATUS", false)
	n.networkReady(t, true)
	statusCalls := func() int {
		calls, _ := os.ReadFile(filepath.Join(n.Dir, "calls"))
		return strings.Count(string(calls), "STATUS\n")
	}
	before := statusCalls()
	for range 200 {
		n.networkCondition(t)
	}
	if after := statusCalls(); after > before+1 {
		t.Errorf("STATUS calls of the plugin during 200 requests: got %d, want at most 1", after-before)
	}
}

// TestDamagedPodNetwork deletes the interface of a pod, and creates a lease without a pod,
// without the daemon.
func TestDamagedPodNetwork(t *testing.T) {
	n := newNode(t, "damage", 111)
	p := n.RunPod(t, podConfig("a"))
	info := func() (fault string, s *cri.PodSandboxStatus) {
		t.Helper()
		st, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.ID, Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		var m struct{ NetworkFault string }
		if err := json.Unmarshal([]byte(st.GetInfo()["info"]), &m); err != nil {
			t.Fatal(err)
		}
		return m.NetworkFault, st.GetStatus()
	}
	stray := filepath.Join(n.Dir, "leases", "csdamage", "10.111.0.77")
	if err := os.WriteFile(stray, []byte(strings.Repeat("ab", 32)+"\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Kill()
	command(t, n.netns(p), "ip", "link", "del", "eth0")
	n.restart(t)
	var fault string
	var st *cri.PodSandboxStatus
	for end := time.Now().Add(harness.Patience(30 * time.Second)); fault == "" && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		fault, st = info()
	}
	if !strings.Contains(fault, "veth") || st.GetState() != cri.PodSandboxState_SANDBOX_READY {
		t.Errorf("verbose status: got networkFault %q, state %s, want a missing veth and ready", fault, st.GetState())
	}
	removed := false
	for end := time.Now().Add(harness.Patience(30 * time.Second)); !removed && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_, err := os.Stat(stray)
		removed = os.IsNotExist(err)
	}
	if !removed {
		t.Errorf("lease without a pod at the deadline exists, want none")
	}
	lease := filepath.Join(n.Dir, "leases", "csdamage", n.podIPs(t, p.ID)[0])
	if _, err := os.Stat(lease); err != nil {
		t.Errorf("lease of a running pod: got error %v, want none", err)
	}
	n.RemovePod(t, p.ID)
	if _, err := os.Stat(lease); err == nil {
		t.Error("lease after the removal of the pod exists, want none")
	}
}
