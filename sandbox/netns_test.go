package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/sandbox/namespace"
)

// ipNetns runs `ip netns` and returns its output.
func ipNetns(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", append([]string{"netns"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip netns %q: %v: %s", args, err, out)
	}
	return string(out)
}

func TestNetNSName(t *testing.T) {
	b, _ := fakeBed(t)
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	name := "criserver-" + p.ID
	path := filepath.Join(testNetNSDir, name)
	if p.NetNS() != path {
		t.Errorf("the pod has the network namespace %q, want %q", p.NetNS(), path)
	}
	calls, err := os.ReadFile(filepath.Join(b.cfg.CNI.BinDirs[0], "calls"))
	if err != nil || !strings.Contains(string(calls), path) {
		t.Errorf("calls of the plugin %q (%v) do not contain the path %s", calls, err, path)
	}
	ipNetns(t, "add", "other") // mounts on the directory unless it is a mount point
	if list := ipNetns(t, "list"); !strings.Contains(list, name) {
		t.Errorf("ip netns list has %q, want %s", list, name)
	}
	if links := ipNetns(t, "exec", name, "ip", "-br", "link"); !strings.HasPrefix(links, "lo ") {
		t.Errorf("the namespace has the links %q, want lo", links)
	}
	host := mustRun(t, m, hostPod("host"))
	if host.NetNS() != "" {
		t.Errorf("a pod with the network of the host has the namespace %q", host.NetNS())
	}
	mustRemove(t, m, p.ID, host.ID)
	ipNetns(t, "delete", "other")
	if list := ipNetns(t, "list"); list != "" {
		t.Errorf("namespaces after the removal: %q", list)
	}
}

// TestNetNSNameDeleted deletes and replaces names of network namespaces, as an administrator could.
func TestNetNSNameDeleted(t *testing.T) {
	b, _ := fakeBed(t)
	m := b.start()
	deleted, replaced := mustRun(t, m, podConfig("deleted")), mustRun(t, m, podConfig("replaced"))
	gone, foreign := filepath.Base(deleted.NetNS()), filepath.Base(replaced.NetNS())
	ipNetns(t, "delete", gone)
	ipNetns(t, "delete", foreign)
	ipNetns(t, "add", foreign)
	for _, p := range []*Pod{deleted, replaced} {
		if p.NetNS() != p.Namespaces.Net || !namespace.Pinned(p.NetNS()) {
			t.Errorf("pod has the network namespace %q, want %q", p.NetNS(), p.Namespaces.Net)
		}
	}
	b.halt()

	m = b.start()
	for id, want := range map[string]string{deleted.ID: filepath.Join(testNetNSDir, gone), replaced.ID: replaced.Namespaces.Net} {
		p, err := m.Get(id)
		if err != nil || !p.Ready || p.NetNS() != want {
			t.Errorf("after a restart: got %+v, %v; want a ready pod with the network namespace %q", p, err, want)
		}
	}
	mustRemove(t, m, deleted.ID, replaced.ID)
	if list := ipNetns(t, "list"); !strings.Contains(list, foreign) || strings.Contains(list, gone) {
		t.Errorf("namespaces after the removal: %q, want %s", list, foreign)
	}
	ipNetns(t, "delete", foreign)
}

// TestNetNSDirChanges restarts the daemon with other directories. Pods keep the names with which they were created.
func TestNetNSDirChanges(t *testing.T) {
	b, _ := fakeBed(t)
	b.cfg.NetNSDir = ""
	m := b.start()
	unnamed := mustRun(t, m, podConfig("unnamed"))
	if unnamed.NetNS() != unnamed.Namespaces.Net {
		t.Errorf("the pod has the network namespace %q, want %q", unnamed.NetNS(), unnamed.Namespaces.Net)
	}
	b.halt()

	b.cfg.NetNSDir = testNetNSDir
	m = b.start()
	named := mustRun(t, m, podConfig("named"))
	if p, err := m.Get(unnamed.ID); err != nil || !p.Ready || p.NetNS() != unnamed.NetNS() {
		t.Errorf("pod without a name after a restart: %+v, %v", p, err)
	}
	b.halt()

	b.cfg.NetNSDir = ""
	m = b.start()
	if p, err := m.Get(named.ID); err != nil || !p.Ready || p.NetNS() != filepath.Join(testNetNSDir, "criserver-"+named.ID) {
		t.Errorf("pod with a name after a restart: %+v, %v", p, err)
	}
	mustRemove(t, m, unnamed.ID, named.ID)
}
