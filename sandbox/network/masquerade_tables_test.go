package network

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// fakeNFT puts an nft into the PATH that records its arguments and its stdin, and fails while the
// file broken exists. calls returns the calls since the last call of calls.
func fakeNFT(t *testing.T) (calls func() []string, broken string) {
	t.Helper()
	dir := t.TempDir()
	broken = filepath.Join(dir, "broken")
	body := "#!/bin/sh\n[ -e " + broken + " ] && exit 1\nif [ \"$1\" = -f ]; then cat; else echo \"$@\"; fi | tr '\\n' ';' >>" + dir + "/calls; echo >>" + dir + "/calls\n"
	if err := os.WriteFile(filepath.Join(dir, "nft"), []byte(body), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		b, _ := os.ReadFile(filepath.Join(dir, "calls"))
		_ = os.Remove(filepath.Join(dir, "calls"))
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}, broken
}

func masqueradeFor(subnets ...string) masquerade {
	m := masquerade{Table: masqueradePrefix + "n"}
	for _, s := range subnets {
		m.Subnets = append(m.Subnets, netip.MustParsePrefix(s))
	}
	return m
}

// TestMasqueradeTables checks the calls of nft from the creation of a table to its deletion.
func TestMasqueradeTables(t *testing.T) {
	calls, broken := fakeNFT(t)
	files := tableFiles{filepath.Join(t.TempDir(), "tables")}
	m := &masqueradeTables{files: files}
	loaded := func(need masquerade) []*list { return []*list{{masquerade: &need}} }
	pod := func(id string) types.GCAttachment { return types.GCAttachment{ContainerID: id, IfName: "eth0"} }
	old, changed := masqueradeFor("10.1.0.0/16", "fd01::/64"), masqueradeFor("10.2.0.0/16")
	expect := func(what string, want ...string) {
		t.Helper()
		got := calls()
		if len(want) == 0 {
			want = []string{""}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %q, want %q", what, got, want)
			return
		}
		for i, w := range want {
			var subnets []string
			for rule := range strings.SplitSeq(got[i], ";") {
				if f := strings.Fields(rule); slices.Contains(f, "saddr") {
					subnets = append(subnets, f[slices.Index(f, "saddr")+1])
				}
			}
			if w != strings.Join(subnets, " ") && !strings.HasPrefix(got[i], w) {
				t.Errorf("%s: %q, want %q", what, got[i], w)
			}
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	check(m.prepare(t.Context(), old, time.Minute))
	m.configure(loaded(old))
	expect("the first configuration", "10.1.0.0/16 fd01::/64")
	check(m.acquire(t.Context(), old, pod("a")))
	expect("a pod")
	m.reconcile(t.Context(), false)
	expect("nothing to do")
	m.reconcile(t.Context(), true)
	expect("a check", "list table")

	check(m.prepare(t.Context(), changed, time.Minute))
	expect("another subnet", "10.1.0.0/16 10.2.0.0/16 fd01::/64")
	m.configure(loaded(changed))
	m.reconcile(t.Context(), false)
	expect("subnets of the pod are kept")
	check(m.acquire(t.Context(), changed, pod("b")))
	expect("another pod")
	if !m.release(old, pod("a")) {
		t.Error("release did not report that the old subnets are unused")
	}
	m.reconcile(t.Context(), false)
	expect("last pod of the old subnets detached", "10.2.0.0/16")

	// A pod that was planned before the change is attached after it.
	check(m.acquire(t.Context(), old, pod("c")))
	expect("pod attached late", "10.1.0.0/16 10.2.0.0/16 fd01::/64")
	m.release(old, pod("c"))
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if m.reconcile(t.Context(), false) {
		t.Error("reconcile succeeded although nft failed")
	}
	if err := m.acquire(t.Context(), old, pod("d")); err == nil {
		t.Error("acquire succeeded although nft failed")
	}
	check(os.Remove(broken))
	m.reconcile(t.Context(), false)
	expect("after the failure", "10.2.0.0/16")

	m.configure(nil)
	m.reconcile(t.Context(), false)
	expect("without the configuration")
	next := &masqueradeTables{files: files} // the daemon starts again
	contents, err := files.all()
	check(err)
	check(next.load(contents, false))
	next.restore(changed, pod("b"))
	next.reconcile(t.Context(), false)
	expect("after a restart", "10.2.0.0/16")
	if !next.release(changed, pod("b")) {
		t.Error("release did not report that the table is unused")
	}
	next.reconcile(t.Context(), false)
	expect("last pod detached", "add table inet criserver_masquerade_n;delete table inet criserver_masquerade_n;")
	if contents, err := files.all(); err != nil || len(contents) != 0 {
		t.Errorf("files that are left: %v, %v", contents, err)
	}
}

// TestForeignMasqueradeTables checks that the daemon keeps the tables of another daemon and of a newer daemon.
func TestForeignMasqueradeTables(t *testing.T) {
	calls, broken := fakeNFT(t)
	m := &masqueradeTables{files: tableFiles{t.TempDir()}}
	if err := m.load(map[string][]byte{masqueradePrefix + "n": []byte("{"), hostPortsPrefix + "n": []byte("{}")}, false); err == nil || !strings.Contains(err.Error(), masqueradePrefix+"n") {
		t.Errorf("load of an invalid file: %v", err)
	}
	m.reconcile(t.Context(), true)
	// After nft has refused a table, there is nothing to delete.
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.prepare(t.Context(), masqueradeFor("10.1.0.0/16"), time.Minute); err == nil {
		t.Error("prepare succeeded although nft failed")
	}
	if !m.reconcile(t.Context(), true) || len(m.tables) != 0 {
		t.Errorf("%+v", m.tables)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if err := m.load(map[string][]byte{masqueradePrefix + "n": []byte(`{"subnets":["10.1.0.0/16"]}`)}, true); err != nil {
		t.Fatal(err)
	}
	calls()
	m.reconcile(t.Context(), false)
	if got := calls(); len(got) != 1 || !strings.Contains(got[0], "10.1.0.0/16") {
		t.Errorf("subnets for pods with unreadable records: got the calls %q", got)
	}
}

// TestMasqueradeInPlan checks that a plan without some plugins and a plan with host ports keep the
// masquerading, and that a configuration file cannot set it.
func TestMasqueradeInPlan(t *testing.T) {
	fakeNFT(t)
	n := New(Config{CacheDir: t.TempDir()})
	l, err := parseList([]byte(strings.Replace(portsConf, `"ipam":{`, `"ipMasq":true,"ipam":{"subnet":"10.1.0.0/16",`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.enableMasquerade(t.Context(), l, time.Minute); err != nil || l.masquerade == nil {
		t.Fatalf("%+v, %v", l.masquerade, err)
	}
	l.hostPorts = planHostPorts(l.conf)
	for _, pod := range []Pod{{}, {PortMappings: []PortMapping{{HostPort: 1, ContainerPort: 1, Protocol: "tcp"}}}} {
		plan, err := n.podList(l, pod)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseList(plan.planned)
		if err != nil || again.masquerade == nil || fmt.Sprint(*again.masquerade) != "{criserver_masquerade_n [10.1.0.0/16]}" || (again.hostPorts != nil) != (len(pod.PortMappings) > 0) {
			t.Errorf("%s, %v", plan.planned, err)
		}
		raw, err := inline(again.conf)
		if err != nil || strings.Contains(string(raw), "io.criserver") {
			t.Errorf("%s, %v", raw, err)
		}
	}
}
