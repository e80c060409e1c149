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
		want string // in the error, "" for no error
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
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func TestHostID(t *testing.T) {
	m := Maps{UIDs: []Mapping{{0, 1000, 10}, {100, 5000, 2}}, GIDs: []Mapping{{0, 2000, 10}}}
	for id, want := range map[uint32]uint32{0: 1000, 9: 1009, 100: 5000, 101: 5001} {
		if got, ok := HostID(m.UIDs, id); !ok || got != want {
			t.Errorf("id %d: got %d, %v; want %d", id, got, ok, want)
		}
	}
	for _, id := range []uint32{10, 99, 102, 1<<32 - 1} {
		if got, ok := HostID(m.UIDs, id); ok {
			t.Errorf("id %d, which is not mapped, is %d on the host", id, got)
		}
	}
	if uid, gid, err := m.Root(); uid != 1000 || gid != 2000 || err != nil {
		t.Errorf("root is %d:%d, %v", uid, gid, err)
	}
	if _, _, err := (Maps{UIDs: m.UIDs}).Root(); err == nil {
		t.Error("Root of maps without groups returns no error")
	}
}

// sleeper is a Holder that sleeps.
var sleeper = Holder{Path: "/bin/sleep", Args: []string{"sleep", "600"}}

func TestHold(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to create namespaces")
	}
	m := Maps{UIDs: []Mapping{{0, 300000, 1000}}, GIDs: []Mapping{{0, 400000, 1000}}}
	var pid int
	err := sleeper.Hold(m, unix.CLONE_NEWNET, func(p int) error {
		pid = p
		for kind := range map[string]bool{"user": true, "net": true} {
			daemon, err := os.Readlink("/proc/self/ns/" + kind)
			holder, holderErr := os.Readlink(Path(p, kind))
			if err != nil || holderErr != nil || daemon == holder {
				t.Errorf("%s namespace: %s of this process and %s of the holder, %v, %v", kind, daemon, holder, err, holderErr)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("holder was not killed: %v", err)
	}
	want := errors.New("failed")
	if err := sleeper.Hold(m, 0, func(int) error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v, want the error of the function", err)
	}
	if err := (Holder{Path: "/no/such", Args: []string{"x"}}).Hold(m, 0, nil); err == nil {
		t.Error("Hold with a missing program returns no error")
	}
}

func TestMapMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to create namespaces")
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
		t.Errorf("owner is %d:%d, %v; want 300007:400008", st.Uid, st.Gid, err)
	}
	if _, err := MapMount("/proc", ns, false); !errors.Is(err, unix.EINVAL) {
		t.Errorf("MapMount of a file system without idmapped mounts: %v, want EINVAL", err)
	}
}
