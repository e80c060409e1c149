package network

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// fakeNFT puts an nft in front of the PATH that notes what it is told, and fails while
// the file broken exists.
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

// TestMasqueradeTables goes through the life of a table by the calls of nft.
func TestMasqueradeTables(t *testing.T) {
	calls, broken := fakeNFT(t)
	files := tableFiles{filepath.Join(t.TempDir(), "tables")}
	m := &masqTables{files: files}
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

	check(m.offer(t.Context(), old, time.Minute))
	m.configure(loaded(old))
	expect("the first configuration", "10.1.0.0/16 fd01::/64")
	check(m.hold(t.Context(), old, pod("a")))
	expect("a pod")
	m.settle(t.Context(), false)
	expect("nothing to do")
	m.settle(t.Context(), true)
	expect("a check", "list table")

	check(m.offer(t.Context(), changed, time.Minute))
	expect("another subnet", "10.1.0.0/16 10.2.0.0/16 fd01::/64")
	m.configure(loaded(changed))
	m.settle(t.Context(), false)
	expect("the subnets of the pod stay")
	check(m.hold(t.Context(), changed, pod("b")))
	expect("another pod")
	if !m.release(old, pod("a")) {
		t.Error("the old subnets are still needed")
	}
	m.settle(t.Context(), false)
	expect("the last pod of the old subnets has gone", "10.2.0.0/16")

	// A pod that was planned before the change is attached after it.
	check(m.hold(t.Context(), old, pod("c")))
	expect("a late pod", "10.1.0.0/16 10.2.0.0/16 fd01::/64")
	m.release(old, pod("c"))
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if m.settle(t.Context(), false) {
		t.Error("nft has failed")
	}
	if err := m.hold(t.Context(), old, pod("d")); err == nil {
		t.Error("a pod was attached without masquerading")
	}
	check(os.Remove(broken))
	m.settle(t.Context(), false)
	expect("after the failure", "10.2.0.0/16")

	m.configure(nil)
	m.settle(t.Context(), false)
	expect("without the configuration")
	next := &masqTables{files: files} // the daemon starts again
	contents, err := files.all()
	check(err)
	check(next.recall(contents, false))
	next.adopt(changed, pod("b"))
	next.settle(t.Context(), false)
	expect("after a restart", "10.2.0.0/16")
	if !next.release(changed, pod("b")) {
		t.Error("the table is still needed")
	}
	next.settle(t.Context(), false)
	expect("the last pod has gone", "add table inet criserver_masquerade_n;delete table inet criserver_masquerade_n;")
	if contents, err := files.all(); err != nil || len(contents) != 0 {
		t.Errorf("left: %v, %v", contents, err)
	}
}

// TestTablesThatAreNotOurs leaves alone what another daemon or a newer one has made.
func TestTablesThatAreNotOurs(t *testing.T) {
	calls, broken := fakeNFT(t)
	m := &masqTables{files: tableFiles{t.TempDir()}}
	if err := m.recall(map[string][]byte{masqueradePrefix + "n": []byte("{"), hostPortsPrefix + "n": []byte("{}")}, false); err == nil || !strings.Contains(err.Error(), masqueradePrefix+"n") {
		t.Errorf("a file that cannot be read: %v", err)
	}
	m.settle(t.Context(), true)
	// A table that nft refuses to make leaves nothing to delete.
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.offer(t.Context(), masqueradeFor("10.1.0.0/16"), time.Minute); err == nil {
		t.Error("no error")
	}
	if !m.settle(t.Context(), true) || len(m.tables) != 0 {
		t.Errorf("%+v", m.tables)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if err := m.recall(map[string][]byte{masqueradePrefix + "n": []byte(`{"subnets":["10.1.0.0/16"]}`)}, true); err != nil {
		t.Fatal(err)
	}
	calls()
	m.settle(t.Context(), false)
	if got := calls(); len(got) != 1 || !strings.Contains(got[0], "10.1.0.0/16") {
		t.Errorf("subnets of pods that are not known: %q", got)
	}
}

// TestPlansKeepTheMasquerading checks that neither the removal of a plugin nor the plan
// of host ports drops it, and that a file cannot bring it along.
func TestPlansKeepTheMasquerading(t *testing.T) {
	fakeNFT(t)
	n := New(Config{CacheDir: t.TempDir()})
	l, err := fromRaw([]byte(strings.Replace(withPorts, `"ipam":{`, `"ipMasq":true,"ipam":{"subnet":"10.1.0.0/16",`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.takeMasquerade(t.Context(), l, time.Minute); err != nil || l.masquerade == nil {
		t.Fatalf("%+v, %v", l.masquerade, err)
	}
	l.hostPorts = hostPortsOf(l.conf)
	for _, pod := range []Pod{{}, {PortMappings: []PortMapping{{HostPort: 1, ContainerPort: 1, Protocol: "tcp"}}}} {
		plan, err := n.trim(l, pod)
		if err != nil {
			t.Fatal(err)
		}
		again, err := fromRaw(plan.planned)
		if err != nil || again.masquerade == nil || fmt.Sprint(*again.masquerade) != "{criserver_masquerade_n [10.1.0.0/16]}" || (again.hostPorts != nil) != (len(pod.PortMappings) > 0) {
			t.Errorf("%s, %v", plan.planned, err)
		}
		raw, err := inline(again.conf)
		if err != nil || strings.Contains(string(raw), "io.criserver") {
			t.Errorf("%s, %v", raw, err)
		}
	}
}

func event(kind uint16, family byte, name string) []byte {
	body := append([]byte{family, 0, 0, 0}, attribute(2, "flags")...)
	body = append(body, attribute(unix.NFTA_TABLE_NAME, name)...)
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_NFTABLES<<8|kind)
	return append(append(b, make([]byte, 10)...), body...)
}

func attribute(kind uint16, s string) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(s)+1))
	b = append(binary.NativeEndian.AppendUint16(b, kind), s...)
	return append(b, make([]byte, 4-len(s)%4)...)
}

func TestNoteTables(t *testing.T) {
	const inet, ip = unix.NFPROTO_INET, unix.NFPROTO_IPV4
	mine, other := masqueradePrefix+"n", hostPortsPrefix+"net"
	for name, tt := range map[string]struct {
		events [][]byte
		want   []string
	}{
		"deleted":  {[][]byte{event(unix.NFT_MSG_DELTABLE, inet, mine), event(unix.NFT_MSG_DELTABLE, inet, other)}, []string{other, mine}},
		"replaced": {[][]byte{event(unix.NFT_MSG_DELTABLE, inet, mine), event(unix.NFT_MSG_DELTABLE, inet, other), event(unix.NFT_MSG_NEWTABLE, inet, mine)}, []string{other}},
		"others":   {[][]byte{event(unix.NFT_MSG_DELTABLE, inet, "filter"), event(unix.NFT_MSG_DELTABLE, ip, mine), event(unix.NFT_MSG_DELRULE, inet, mine)}, nil},
	} {
		gone := map[string]bool{}
		all := slices.Concat(tt.events...)
		noteTables(all, gone)
		if got := slices.Sorted(maps.Keys(gone)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
		for i := range all { // whatever is cut off must not end the daemon
			noteTables(all[:i], gone)
		}
	}
}

func FuzzNoteTables(f *testing.F) {
	f.Add(event(unix.NFT_MSG_DELTABLE, unix.NFPROTO_INET, masqueradePrefix+"n"))
	f.Fuzz(func(_ *testing.T, b []byte) { noteTables(b, map[string]bool{}) })
}
