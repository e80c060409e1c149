package userns

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		list []Mapping
		says string
	}{
		"none":            {nil, ""},
		"one":             {[]Mapping{{0, 1000, 65536}}, ""},
		"two":             {[]Mapping{{0, 1000, 10}, {10, 1010, 10}}, ""},
		"all":             {[]Mapping{{0, 0, 1<<32 - 1}}, ""},
		"empty":           {[]Mapping{{0, 1000, 0}}, "length 0"},
		"container end":   {[]Mapping{{1, 0, 1<<32 - 1}}, "container ids"},
		"host end":        {[]Mapping{{0, 1<<32 - 1, 1}}, "host ids"},
		"same container":  {[]Mapping{{0, 1000, 10}, {9, 2000, 10}}, "overlaps"},
		"same host":       {[]Mapping{{0, 1000, 10}, {10, 1009, 10}}, "overlaps"},
		"one in another":  {[]Mapping{{0, 1000, 100}, {200, 1050, 1}}, "overlaps"},
		"too many ranges": {make([]Mapping, 341), "341"},
	} {
		err := Check(tc.list)
		if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostID(t *testing.T) {
	m := Maps{UIDs: []Mapping{{0, 1000, 10}, {100, 5000, 2}}, GIDs: []Mapping{{0, 2000, 10}}}
	for id, want := range map[uint32]uint32{0: 1000, 9: 1009, 100: 5000, 101: 5001} {
		if got, ok := Host(m.UIDs, id); !ok || got != want {
			t.Errorf("%d: %d, %v", id, got, ok)
		}
	}
	for _, id := range []uint32{10, 99, 102, 1<<32 - 1} {
		if got, ok := Host(m.UIDs, id); ok {
			t.Errorf("%d is mapped to %d", id, got)
		}
	}
	if uid, gid, err := m.Root(); uid != 1000 || gid != 2000 || err != nil {
		t.Errorf("root %d:%d, %v", uid, gid, err)
	}
	if _, _, err := (Maps{UIDs: m.UIDs}).Root(); err == nil {
		t.Error("a root without a group")
	}
}

var sleeper = Holder{Path: "/bin/sleep", Args: []string{"sleep", "600"}}

func TestHold(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making namespaces needs root")
	}
	m := Maps{UIDs: []Mapping{{0, 300000, 1000}}, GIDs: []Mapping{{0, 400000, 1000}}}
	var pid int
	err := sleeper.Hold(m, unix.CLONE_NEWNET, func(p int) error {
		pid = p
		for kind := range map[string]bool{"user": true, "net": true} {
			own, err := os.Readlink("/proc/self/ns/" + kind)
			other, oerr := os.Readlink(Path(p, kind))
			if err != nil || oerr != nil || own == other {
				t.Errorf("%s namespace: %s %s, %v %v", kind, own, other, err, oerr)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the holder lives on: %v", err)
	}
	failure := errors.New("no")
	if err := sleeper.Hold(m, 0, func(int) error { return failure }); !errors.Is(err, failure) {
		t.Error(err)
	}
	if err := (Holder{Path: "/no/such", Args: []string{"x"}}).Hold(m, 0, nil); err == nil {
		t.Error("a holder that is not there")
	}
}

func TestMapMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making namespaces needs root")
	}
	ns, err := sleeper.Open(Maps{UIDs: []Mapping{{0, 300000, 1000}}, GIDs: []Mapping{{0, 400000, 1000}}})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "f"), 7, 8); err != nil {
		t.Fatal(err)
	}
	tree, err := MapMount(dir, ns, false)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(tree.Fd()), "f", &st, 0); err != nil || st.Uid != 300007 || st.Gid != 400008 {
		t.Errorf("owner %d:%d, %v", st.Uid, st.Gid, err)
	}
	if _, err := MapMount("/proc", ns, false); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a file system that cannot be mapped: %v", err)
	}
}
