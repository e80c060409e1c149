package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/vishvananda/netlink"
)

// newBare returns the Network of a daemon without a CNI configuration and without plugins, in its own directories.
func newBare(t *testing.T) (n *Network, confDir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can create bridges")
	}
	dir := t.TempDir()
	confDir = filepath.Join(dir, "net.d")
	if err := os.Mkdir(confDir, 0o755); err != nil {
		t.Fatal(err)
	}
	n = New(Config{
		ConfDirs: []string{confDir}, BinDirs: []string{filepath.Join(dir, "missing")},
		CacheDir: filepath.Join(dir, "cache"), DefaultBridge: true,
	})
	return n, confDir
}

// restarted returns the Network of the next daemon with the same directories.
func restarted(n *Network) *Network { return New(*n.cfg()) }

// reload loads the configuration and returns the default bridge, which must be in use.
func reload(t *testing.T, n *Network) DefaultBridge {
	t.Helper()
	if _, err := n.Reload(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	b := n.DefaultBridge()
	if b == nil {
		t.Fatalf("the default bridge is not in use: %v", n.loaded.Load().err)
	}
	t.Cleanup(func() { removeBridge(b.Bridge) })
	return *b
}

// answerStatus asks the plugins for their status, as Run does.
func answerStatus(t *testing.T, n *Network) {
	t.Helper()
	l := n.loaded.Load()
	n.answer.Store(&statusAnswer{conf: l, err: n.askStatus(t.Context(), l.list, time.Minute)})
	if err := n.Status(); err != nil {
		t.Fatalf("network status: %v", err)
	}
}

// attachPod attaches a pod to the default network.
func attachPod(t *testing.T, n *Network, pod Pod) (Interface, *Result) {
	t.Helper()
	plan, err := n.Plan(pod, "")
	if err != nil {
		t.Fatal(err)
	}
	i := Default(plan)
	res, err := n.Attach(t.Context(), pod, i)
	if err != nil {
		t.Fatal(err)
	}
	i.Result = res.JSON
	return i, res
}

func ruleset(t *testing.T) string {
	t.Helper()
	b, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v: %s", err, b)
	}
	return string(b)
}

// TestDefaultBridge attaches a pod to the default bridge of a host without CNI files and plugins. It checks the
// addresses, masquerading and a host port, then a restart of the daemon, and then a CNI file that an operator adds.
func TestDefaultBridge(t *testing.T) {
	n, confDir := newBare(t)
	b := reload(t, n)
	if b.Bridge != "cri0" || len(b.Ranges) == 0 {
		t.Fatalf("got %+v", b)
	}
	answerStatus(t, n)
	pod := Pod{ID: "first", NetNS: makeNetNS(t), PortMappings: []PortMapping{{HostPort: 18082, ContainerPort: 80, Protocol: "tcp"}}}
	i, res := attachPod(t, n, pod)
	if len(res.IPs) != len(b.Ranges) {
		t.Errorf("got the addresses %v, want one of each of %v", res.IPs, b.Ranges)
	}
	for k, ip := range res.IPs {
		if !b.Ranges[k].Contains(ip) {
			t.Errorf("address %s is not in %s", ip, b.Ranges[k])
		}
	}
	if err := n.Check(t.Context(), pod, i); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	rules := ruleset(t)
	for _, r := range b.Ranges {
		if want := fmt.Sprintf("saddr %s", r); !strings.Contains(rules, want) {
			t.Errorf("no masquerading of %s:\n%s", r, rules)
		}
	}
	if want := fmt.Sprintf("tcp . 18082 comment \"pod first\" : %s . 80", res.IPs[0]); !strings.Contains(rules, want) {
		t.Errorf("no host port %q:\n%s", want, rules)
	}
	if got := greeting(t, pod.NetNS, "127.0.0.1:18082"); got != "hello" {
		t.Errorf("host port: got %q", got)
	}

	// The next daemon keeps the bridge and its ranges, although the bridge makes the ranges appear in use.
	n = restarted(n)
	n.RestoreAttachments(pod.ID, i)
	n.RestoreHostPorts(pod.ID, i, pod.PortMappings)
	if again := reload(t, n); again.Bridge != b.Bridge || !slices.Equal(again.Ranges, b.Ranges) {
		t.Errorf("after a restart: got %+v, want %+v", again, b)
	}

	// A CNI file takes over for new pods. The first pod keeps its network.
	writeFile(t, confDir, "10-own.conflist", fmt.Sprintf(`{"cniVersion":"1.1.0","name":"own","plugins":[
{"type":"bridge","bridge":"criown0","isGateway":true,"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.65.0.0/24"}]]}}]}`, t.TempDir()))
	t.Cleanup(func() { removeBridge("criown0") })
	if _, err := n.Reload(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if d := n.DefaultBridge(); d != nil {
		t.Errorf("the default bridge is in use besides the file: %+v", d)
	}
	answerStatus(t, n)
	second := Pod{ID: "second", NetNS: makeNetNS(t)}
	j, res := attachPod(t, n, second)
	if len(res.IPs) != 1 || !netip.MustParsePrefix("10.65.0.0/24").Contains(res.IPs[0]) {
		t.Errorf("pod after the file: got the addresses %v", res.IPs)
	}
	n.reconcileTables(t.Context(), true)
	if err := n.gc(t.Context()); err != nil {
		t.Errorf("GC: %v", err)
	}
	if err := n.Check(t.Context(), pod, i); err != nil {
		t.Errorf("CHECK of the first pod: %v", err)
	}
	if got := greeting(t, pod.NetNS, "127.0.0.1:18082"); got != "hello" {
		t.Errorf("host port of the first pod: got %q", got)
	}
	if rules := ruleset(t); !strings.Contains(rules, "saddr "+b.Ranges[0].String()) {
		t.Errorf("no masquerading for the first pod:\n%s", rules)
	}

	// The bridge and its tables are removed after the last pod.
	for _, p := range []struct {
		pod Pod
		i   Interface
	}{{pod, i}, {second, j}} {
		if err := n.Detach(t.Context(), p.pod, p.i); err != nil {
			t.Errorf("DEL: %v", err)
		}
	}
	if len(n.gcRequests) == 0 {
		t.Error("DEL of the last pod of the default bridge does not request GC")
	}
	if err := n.gc(t.Context()); err != nil {
		t.Errorf("GC: %v", err)
	}
	if _, err := netlink.LinkByName(b.Bridge); err == nil {
		t.Errorf("bridge %s exists after its last pod", b.Bridge)
	}
	n.reconcileTables(t.Context(), true)
	if rules := ruleset(t); strings.Contains(rules, b.Network()) {
		t.Errorf("tables of the default bridge after its last pod:\n%s", rules)
	}
}

// TestRemoveDefaultBridge checks that the bridge is deleted only without pods, and that the next pod gets a bridge
// again.
func TestRemoveDefaultBridge(t *testing.T) {
	n, _ := newBare(t)
	b := reload(t, n)
	answerStatus(t, n)
	pod := Pod{ID: "only", NetNS: makeNetNS(t)}
	i, _ := attachPod(t, n, pod)
	exists := func() bool { _, err := netlink.LinkByName(b.Bridge); return err == nil }
	if err := n.RemoveDefaultBridge(t.Context()); err != nil || !exists() {
		t.Errorf("with a pod: %v, the bridge exists: %t, want true", err, exists())
	}
	if err := n.Detach(t.Context(), pod, i); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.RemoveDefaultBridge(t.Context()); err != nil || exists() {
			t.Errorf("without pods: %v, the bridge exists: %t, want false", err, exists())
		}
	}
	n = restarted(n)
	b = reload(t, n)
	answerStatus(t, n)
	next := Pod{ID: "next", NetNS: makeNetNS(t)}
	j, res := attachPod(t, n, next)
	if !exists() || len(res.IPs) == 0 {
		t.Errorf("next pod: addresses %v, the bridge exists: %t", res.IPs, exists())
	}
	if err := n.Detach(t.Context(), next, j); err != nil {
		t.Error(err)
	}
}

// greeting serves a greeting on port 80 of a pod and returns what a client of an address of the host receives.
func greeting(t *testing.T, netns, addr string) string {
	t.Helper()
	var l net.Listener
	err := namespace.RunInNet(netns, func() (err error) {
		l, err = net.Listen("tcp4", ":80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp4", addr)
	if err != nil {
		t.Errorf("connect to %s: %v", addr, err)
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 16)
	k, _ := c.Read(b)
	return string(b[:k])
}

// TestDefaultBridgeTurnedOff checks the cases in which the daemon must not use the default bridge.
func TestDefaultBridgeTurnedOff(t *testing.T) {
	for name, change := range map[string]func(c *Config, confDir string){
		"key":             func(c *Config, _ string) { c.DefaultBridge = false },
		"default network": func(c *Config, _ string) { c.DefaultNetwork = "other" },
		"template":        func(c *Config, _ string) { c.ConfTemplate = "/some/template" },
		"invalid file":    func(_ *Config, dir string) { writeFile(t, dir, "10-a.conflist", "{") },
	} {
		n, confDir := newBare(t)
		cfg := *n.cfg()
		change(&cfg, confDir)
		n.setConfig(cfg)
		if _, err := n.Reload(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := n.Status(); n.DefaultBridge() != nil || !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), confDir) {
			t.Errorf("%s: default bridge %v, status %v", name, n.DefaultBridge(), err)
		}
		if _, err := netlink.LinkByName("cri0"); err == nil {
			t.Errorf("%s: bridge cri0 exists", name)
			removeBridge("cri0")
		}
	}
}
