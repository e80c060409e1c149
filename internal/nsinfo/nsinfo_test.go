package nsinfo

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProcessOfKernel compares the inode numbers with those that stat(2) returns.
func TestProcessOfKernel(t *testing.T) {
	set, err := Host.Process(os.Getpid())
	if err != nil {
		t.Fatalf("read the namespaces of this process: %v", err)
	}
	for _, kind := range Kinds {
		var st unix.Stat_t
		if err := unix.Stat("/proc/self/ns/"+kind, &st); err != nil {
			t.Fatalf("stat the namespace %s: %v", kind, err)
		}
		if set[kind] != st.Ino {
			t.Errorf("namespace %s: got inode %d, want %d", kind, set[kind], st.Ino)
		}
	}
}

func TestProcessFixtures(t *testing.T) {
	for name, tc := range map[string]struct {
		links map[string]string
		want  Set
		err   string
	}{
		"old kernel without time namespaces": {
			links: map[string]string{"net": "net:[4026531840]", "mnt": "mnt:[4026532201]"},
			want:  Set{"net": 4026531840, "mnt": 4026532201},
		},
		"other kind": {links: map[string]string{"net": "mnt:[1]"}, err: `"mnt:[1]" is not a link to a namespace of the kind net`},
		"no number":  {links: map[string]string{"net": "net:[]"}, err: "is not a link"},
	} {
		proc := t.TempDir()
		dir := filepath.Join(proc, "7", "ns")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for kind, target := range tc.links {
			if err := os.Symlink(target, filepath.Join(dir, kind)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := Reader{proc}.Process(7)
		switch {
		case tc.err != "":
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: got error %v, want one that contains %q", name, err, tc.err)
			}
		case err != nil:
			t.Errorf("%s: got error %v", name, err)
		case len(got) != len(tc.want) || got["net"] != tc.want["net"] || got["mnt"] != tc.want["mnt"]:
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
	if _, err := (Reader{t.TempDir()}).Process(7); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("process that does not exist: got %v, want fs.ErrNotExist", err)
	}
}

func TestPinned(t *testing.T) {
	set, err := Host.Process(os.Getpid())
	if err != nil {
		t.Fatalf("read the namespaces of this process: %v", err)
	}
	if inode, err := Pinned("/proc/self/ns/uts"); err != nil || inode != set["uts"] {
		t.Errorf("UTS namespace of this process: got %d, %v, want %d", inode, err, set["uts"])
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Pinned(file); err == nil || !strings.Contains(err.Error(), "is not a namespace") {
		t.Errorf("plain file: got %v, want an error that it is not a namespace", err)
	}
	if _, err := Pinned(file + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: got %v, want fs.ErrNotExist", err)
	}
}

func TestIDMappings(t *testing.T) {
	proc := t.TempDir()
	dir := filepath.Join(proc, "7")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("uid_map", "         0     100000      65536\n     65536     200000          1\n")
	write("gid_map", "         0          0 4294967295\n")
	uids, gids, err := Reader{proc}.IDMappings(7)
	if err != nil {
		t.Fatalf("read the mappings: %v", err)
	}
	if want := []Mapping{{0, 100000, 65536}, {65536, 200000, 1}}; !slices.Equal(uids, want) {
		t.Errorf("user ids: got %v, want %v", uids, want)
	}
	if want := []Mapping{{0, 0, 4294967295}}; !slices.Equal(gids, want) {
		t.Errorf("group ids: got %v, want %v", gids, want)
	}
	write("gid_map", "0 x 1\n")
	if _, _, err := (Reader{proc}).IDMappings(7); err == nil || !strings.Contains(err.Error(), `line "0 x 1"`) {
		t.Errorf("malformed line: got %v, want an error that quotes the line", err)
	}
}
