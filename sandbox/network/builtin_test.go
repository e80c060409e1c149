package network

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/vishvananda/netlink"
)

// TestBuiltinWithoutPlugins runs STATUS, ADD, CHECK, DEL and GC on a host without CNI plugins.
func TestBuiltinWithoutPlugins(t *testing.T) {
	netns := makeNetNS(t)
	dir := t.TempDir()
	leases := filepath.Join(dir, "leases")
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"bare","plugins":[
{"type":"bridge","bridge":"cribare0","isGateway":true,"ipMasq":true,"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.66.0.0/24"}],[{"subnet":"fd66::/64"}]]}},
{"type":"portmap","snat":true,"capabilities":{"portMappings":true}}]}`, leases)
	writeFile(t, dir, "10-bare.conflist", conf)
	cfg := Config{ConfDirs: []string{dir}, BinDirs: []string{filepath.Join(dir, "missing")}, CacheDir: filepath.Join(dir, "cache")}
	n := New(cfg)
	if _, err := n.Reload(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeBridge("cribare0") })
	l := n.loaded.Load().list
	if err := n.findPlugins(l); err != nil {
		t.Errorf("search for the plugins: %v", err)
	}
	if err := n.askStatus(t.Context(), l, time.Minute); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	pod := Pod{ID: "pod", Name: "p", Namespace: "n", UID: "u", NetNS: netns, PortMappings: []PortMapping{{HostPort: 18081, ContainerPort: 80, Protocol: "tcp"}}}
	planned, err := n.podList(l, pod)
	if err != nil {
		t.Fatal(err)
	}
	i := Default(planned.planned)
	res, err := n.Attach(t.Context(), pod, i)
	if err != nil {
		t.Fatal(err)
	}
	i.Result = res.JSON
	if len(res.IPs) != 2 {
		t.Errorf("got the addresses %v, want one of each family", res.IPs)
	}
	if err := n.Check(t.Context(), pod, i); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if err := namespace.RunInNet(netns, func() error { return checkLoopback(t) }); err != nil {
		t.Error(err)
	}
	if err := n.Detach(t.Context(), pod, i); err != nil {
		t.Errorf("DEL: %v", err)
	}
	// GC removes the lease of a pod that no attachment of the daemon has.
	writeFile(t, filepath.Join(leases, "bare"), "10.66.0.9", "lost\r\neth0")
	if err := n.gc(t.Context()); err != nil {
		t.Errorf("GC: %v", err)
	}
	if got := readLeases(t, filepath.Join(leases, "bare")); strings.Contains(got, "lost") || strings.Contains(got, "pod") {
		t.Errorf("leases after GC:\n%s", got)
	}
	cfg.NoBuiltin = true
	strict := New(cfg)
	if _, err := strict.Reload(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := strict.Status(); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), `"bridge"`) {
		t.Errorf("status with NoBuiltin: %v, want an error that names the missing plugin", err)
	}
}

// checkLoopback checks the interface lo of the network namespace of the calling thread.
func checkLoopback(t *testing.T) error {
	t.Helper()
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	if lo.Attrs().Flags&net.FlagUp == 0 {
		t.Error("lo is down")
	}
	return nil
}

// removeBridge removes a bridge and all rules, so that the next test begins without them.
func removeBridge(name string) {
	if l, err := netlink.LinkByName(name); err == nil {
		_ = netlink.LinkDel(l)
	}
	_ = exec.Command("nft", "flush", "ruleset").Run()
}
