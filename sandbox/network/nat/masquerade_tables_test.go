package nat

import (
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

func masqueradeFor(subnets ...string) Masquerade {
	m := Masquerade{Table: masqueradePrefix + "n"}
	for _, s := range subnets {
		m.Subnets = append(m.Subnets, netip.MustParsePrefix(s))
	}
	return m
}

// TestMasqueradeTables checks the calls of nft from the creation of a table to its deletion.
func TestMasqueradeTables(t *testing.T) {
	calls, broken := fakeNFT(t)
	files := Files{filepath.Join(t.TempDir(), "tables")}
	m := &MasqueradeTables{files: files}
	loaded := func(need Masquerade) []Masquerade { return []Masquerade{need} }
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

	check(m.Prepare(t.Context(), old, time.Minute))
	m.Configure(loaded(old))
	expect("the first configuration", "10.1.0.0/16 fd01::/64")
	check(m.Acquire(t.Context(), old, pod("a")))
	expect("a pod")
	m.Reconcile(t.Context(), false)
	expect("nothing to do")
	m.Reconcile(t.Context(), true)
	expect("a check", "list table")

	check(m.Prepare(t.Context(), changed, time.Minute))
	expect("another subnet", "10.1.0.0/16 10.2.0.0/16 fd01::/64")
	m.Configure(loaded(changed))
	m.Reconcile(t.Context(), false)
	expect("subnets of the pod are kept")
	check(m.Acquire(t.Context(), changed, pod("b")))
	expect("another pod")
	if !m.Release(old, pod("a")) {
		t.Error("Release did not report that the old subnets are unused")
	}
	m.Reconcile(t.Context(), false)
	expect("last pod of the old subnets detached", "10.2.0.0/16")

	// A pod that was planned before the change is attached after it.
	check(m.Acquire(t.Context(), old, pod("c")))
	expect("pod attached late", "10.1.0.0/16 10.2.0.0/16 fd01::/64")
	m.Release(old, pod("c"))
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if m.Reconcile(t.Context(), false) {
		t.Error("Reconcile succeeded although nft failed")
	}
	if err := m.Acquire(t.Context(), old, pod("d")); err == nil {
		t.Error("Acquire succeeded although nft failed")
	}
	check(os.Remove(broken))
	m.Reconcile(t.Context(), false)
	expect("after the failure", "10.2.0.0/16")

	m.Configure(nil)
	m.Reconcile(t.Context(), false)
	expect("without the configuration")
	next := &MasqueradeTables{files: files} // the daemon starts again
	contents, err := files.All()
	check(err)
	check(next.Load(contents, false))
	next.Restore(changed, pod("b"))
	next.Reconcile(t.Context(), false)
	expect("after a restart", "10.2.0.0/16")
	if !next.Release(changed, pod("b")) {
		t.Error("Release did not report that the table is unused")
	}
	next.Reconcile(t.Context(), false)
	expect("last pod detached", "add table inet criserver_masquerade_n;delete table inet criserver_masquerade_n;")
	if contents, err := files.All(); err != nil || len(contents) != 0 {
		t.Errorf("files that are left: %v, %v", contents, err)
	}
}

// TestForeignMasqueradeTables checks that the daemon keeps the tables of another daemon and of a newer daemon.
func TestForeignMasqueradeTables(t *testing.T) {
	calls, broken := fakeNFT(t)
	m := &MasqueradeTables{files: Files{t.TempDir()}}
	if err := m.Load(map[string][]byte{masqueradePrefix + "n": []byte("{"), hostPortsPrefix + "n": []byte("{}")}, false); err == nil || !strings.Contains(err.Error(), masqueradePrefix+"n") {
		t.Errorf("load of an invalid file: %v", err)
	}
	m.Reconcile(t.Context(), true)
	// After nft has refused a table, there is nothing to delete.
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.Prepare(t.Context(), masqueradeFor("10.1.0.0/16"), time.Minute); err == nil {
		t.Error("Prepare succeeded although nft failed")
	}
	if !m.Reconcile(t.Context(), true) || len(m.tables) != 0 {
		t.Errorf("%+v", m.tables)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if err := m.Load(map[string][]byte{masqueradePrefix + "n": []byte(`{"subnets":["10.1.0.0/16"]}`)}, true); err != nil {
		t.Fatal(err)
	}
	calls()
	m.Reconcile(t.Context(), false)
	if got := calls(); len(got) != 1 || !strings.Contains(got[0], "10.1.0.0/16") {
		t.Errorf("subnets for pods with unreadable records: got the calls %q", got)
	}
}
