package layer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/internal/imagetest"
)

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// stackOf unpacks layers, which are ordered from the lowest to the topmost.
func stackOf(tb testing.TB, layers ...[]imagetest.Entry) *Stack {
	tb.Helper()
	var all []*Layer
	for _, entries := range layers {
		blob := imagetest.Tar(tb, entries...)
		parent := tb.TempDir()
		needRoot(tb)
		dir := filepath.Join(parent, filesDir)
		if err := os.Mkdir(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
		l, err := unpack(tb.Context(), dir, Source{
			Reader: strings.NewReader(string(blob)), Progress: func(int) {}, Abort: func(error) {},
		}, testLimits)
		if err != nil {
			tb.Fatal(err)
		}
		l.DiffID, l.dir = digest.FromBytes(blob), parent
		all = append(all, &l)
	}
	return NewStack(all)
}

// merged mounts a stack with its cover and returns the mount point.
func merged(tb testing.TB, s *Stack) string {
	tb.Helper()
	cover := filepath.Join(tb.TempDir(), "cover")
	needed, err := s.WriteCover(cover)
	if err != nil {
		tb.Fatal(err)
	}
	dirs := s.Dirs()
	if needed {
		dirs = append([]string{cover}, dirs...)
	}
	dirs = append(dirs, tb.TempDir()) // overlay without an upper directory needs two
	target := tb.TempDir()
	if err := unix.Mount("overlay", target, "overlay", 0, "lowerdir="+strings.Join(dirs, ":")); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil {
			tb.Error(err)
		}
	})
	return target
}

func TestCover(t *testing.T) {
	type entries = []imagetest.Entry
	file := func(name string) imagetest.Entry { return imagetest.File(name, "") }
	for name, c := range map[string]struct {
		layers []entries
		// want has uid and mode by path. If the mode is 0, the path must not exist.
		want map[string]unix.Stat_t
	}{
		"entry in lower layer": {
			[]entries{{imagetest.DirMode("a", 1, 0o700), imagetest.DirMode("a/b", 2, 0o1777)}, {file("a/b/f")}},
			map[string]unix.Stat_t{"a": {Uid: 1, Mode: 0o700}, "a/b": {Uid: 2, Mode: 0o1777}, "a/b/f": {Mode: 0o644}},
		},
		"no entry": {
			[]entries{{file("a/b/f")}, {file("a/b/g")}},
			map[string]unix.Stat_t{"a/b": {Mode: 0o755}},
		},
		"entry in upper layer": {
			[]entries{{imagetest.DirMode("a", 1, 0o700)}, {file("a/f")}, {imagetest.DirMode("a", 3, 0o711)}, {imagetest.DirMode("b", 3, 0o711)}},
			map[string]unix.Stat_t{"a": {Uid: 3, Mode: 0o711}, "b": {Uid: 3, Mode: 0o711}},
		},
		"implied twice": {
			[]entries{{imagetest.DirMode("a", 1, 0o700)}, {file("a/f")}, {file("a/g")}},
			map[string]unix.Stat_t{"a": {Uid: 1, Mode: 0o700}},
		},
		"whiteout between": {
			[]entries{{imagetest.DirMode("a", 1, 0o700), file("a/old")}, {file(".wh.a")}, {file("a/f")}},
			map[string]unix.Stat_t{"a": {Mode: 0o755}, "a/old": {}, "a/f": {Mode: 0o644}},
		},
		"opaque between": {
			[]entries{{imagetest.DirMode("a", 1, 0o700), imagetest.DirMode("a/b", 1, 0o700)}, {file("a/.wh..wh..opq")}, {file("a/b/f")}},
			map[string]unix.Stat_t{"a": {Mode: 0o755}, "a/b": {Mode: 0o755}},
		},
		"file between": {
			[]entries{{imagetest.DirMode("a", 1, 0o700)}, {file("a")}, {file("a/f")}},
			map[string]unix.Stat_t{"a": {Mode: 0o755}},
		},
		"whiteout above": {
			[]entries{{imagetest.DirMode("a", 1, 0o700)}, {file("a/f")}, {file(".wh.a")}},
			map[string]unix.Stat_t{"a": {}},
		},
		"root": {
			[]entries{{imagetest.DirMode(".", 4, 0o555)}, {file("f")}},
			map[string]unix.Stat_t{".": {Uid: 4, Mode: 0o555}},
		},
		"opaque root": {
			[]entries{{imagetest.DirMode(".", 4, 0o555), imagetest.DirMode("a", 1, 0o700)}, {file("a/f"), file(".wh..wh..opq")}},
			map[string]unix.Stat_t{".": {Mode: 0o755}, "a": {Mode: 0o755}},
		},
		"through a link of the same layer": {
			[]entries{{imagetest.DirMode("usr", 1, 0o700), imagetest.DirMode("usr/lib", 2, 0o711)}, {imagetest.Symlink("lib", "usr/lib"), file("lib/f")}},
			map[string]unix.Stat_t{"usr": {Uid: 1, Mode: 0o700}, "usr/lib": {Uid: 2, Mode: 0o711}, "usr/lib/f": {Mode: 0o644}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := merged(t, stackOf(t, c.layers...))
			for path, want := range c.want {
				var st unix.Stat_t
				err := unix.Lstat(filepath.Join(root, path), &st)
				switch {
				case want.Mode == 0 && err != unix.ENOENT:
					t.Errorf("%s exists: %v", path, err)
				case want.Mode != 0 && (err != nil || st.Uid != want.Uid || st.Mode&0o7777 != want.Mode):
					t.Errorf("%s: got uid %d mode %o, want uid %d mode %o, %v", path, st.Uid, st.Mode&0o7777, want.Uid, want.Mode, err)
				}
			}
		})
	}
}

func TestCoverNotNeeded(t *testing.T) {
	s := stackOf(t, []imagetest.Entry{imagetest.Dir("a")}, []imagetest.Entry{imagetest.File("a/f", "")})
	if needed, err := s.WriteCover(filepath.Join(t.TempDir(), "cover")); needed || err != nil {
		t.Errorf("cover needed: %v, %v", needed, err)
	}
}

func TestStackOmitsLayers(t *testing.T) {
	a, b := &Layer{DiffID: "a", Entries: 1, dir: "a"}, &Layer{DiffID: "b", Entries: 1, dir: "b"}
	empty, top := &Layer{DiffID: "empty", dir: "e"}, &Layer{DiffID: "top", Entries: 1, OpaqueRoot: true, dir: "t"}
	for _, c := range []struct {
		layers []*Layer
		want   string
	}{
		{[]*Layer{a, b}, "b a"},
		{[]*Layer{a, b, a}, "a b"},
		{[]*Layer{a, empty, b, empty}, "b a"},
		{[]*Layer{a, top, b}, "b t"},
		{[]*Layer{empty}, "e"},
	} {
		var got []string
		for _, dir := range NewStack(c.layers).Dirs() {
			got = append(got, filepath.Dir(dir))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("got directories %v, want %s", got, c.want)
		}
	}
}
