package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/internal/imagetest"
)

var testLimits = Limits{Entries: 1000, Bytes: 64 << 20}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("changes the root directory and owners: must be root")
	}
}

// unpackBytes unpacks a blob into a new directory.
func unpackBytes(tb testing.TB, blob []byte, limits Limits) (string, Layer, error) {
	tb.Helper()
	needRoot(tb)
	dir := filepath.Join(tb.TempDir(), "layer")
	if err := os.Mkdir(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	l, err := unpack(context.Background(), dir, Source{
		Blob: Blob{Digest: digest.FromBytes(blob)}, Reader: bytes.NewReader(blob),
		Progress: func(int) {}, Abort: func(error) {},
	}, limits)
	return dir, l, err
}

func unpackEntries(tb testing.TB, entries ...imagetest.Entry) (string, Layer) {
	tb.Helper()
	dir, l, err := unpackBytes(tb, imagetest.Tar(tb, entries...), testLimits)
	if err != nil {
		tb.Fatal(err)
	}
	return dir, l
}

func lstat(tb testing.TB, path ...string) unix.Stat_t {
	tb.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(path...), &st); err != nil {
		tb.Fatalf("%s: %v", filepath.Join(path...), err)
	}
	return st
}

func xattr(tb testing.TB, name string, path ...string) string {
	tb.Helper()
	value := make([]byte, 256)
	n, err := unix.Lgetxattr(filepath.Join(path...), name, value)
	if err == unix.ENODATA {
		return ""
	}
	if err != nil {
		tb.Fatal(err)
	}
	return string(value[:n])
}

func isWhiteout(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

func TestUnpackEntryTypes(t *testing.T) {
	long := strings.Repeat("long/", 60) + strings.Repeat("n", 200)
	caps := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // net_raw
	ping := imagetest.File("ping", "elf")
	ping.Mode, ping.PAXRecords = 0o4755, map[string]string{
		xattrRecord + "security.capability":          caps,
		xattrRecord + "user.note":                    "kept",
		xattrRecord + "trusted.overlay.redirect":     "/etc",
		xattrRecord + "user.overlay.opaque":          "y",
		xattrRecord + "security.selinux":             "system_u:object_r:bin_t:s0",
		xattrRecord + "system.posix_acl_unheard.of!": "x",
	}
	null := imagetest.Entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}}
	fifo := imagetest.Entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}}
	owned := imagetest.DirMode("owned", 1234, 0o2750)
	link := imagetest.Symlink("owned/link", "/etc/passwd")
	link.Uid = 77
	dir, l := unpackEntries(t, imagetest.File(long, "deep"), ping, null, fifo, owned, link,
		imagetest.File("first", "same"), imagetest.HardLink("owned/second", "first"), imagetest.File("/absolute", "in"),
		imagetest.File("owned/../dotted", "in"))

	if b, err := os.ReadFile(filepath.Join(dir, long)); err != nil || string(b) != "deep" {
		t.Errorf("long name: %q, %v", b, err)
	}
	if st := lstat(t, dir, "ping"); st.Mode != unix.S_IFREG|0o4755 {
		t.Errorf("mode %o", st.Mode)
	}
	for name, want := range map[string]string{
		"security.capability": caps, "user.note": "kept",
		"trusted.overlay.redirect": "", "user.overlay.opaque": "", "security.selinux": "",
	} {
		if got := xattr(t, name, dir, "ping"); got != want {
			t.Errorf("attribute %s: got %q, want %q", name, got, want)
		}
	}
	if st := lstat(t, dir, "null"); st.Mode != unix.S_IFCHR|0o666 || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("device %o %x", st.Mode, st.Rdev)
	}
	if st := lstat(t, dir, "fifo"); st.Mode != unix.S_IFIFO|0o600 {
		t.Errorf("fifo %o", st.Mode)
	}
	if st := lstat(t, dir, "owned"); st.Mode != unix.S_IFDIR|0o2750 || st.Uid != 1234 || st.Mtim.Sec != imagetest.Time.Unix() {
		t.Errorf("directory %o of %d, %d", st.Mode, st.Uid, st.Mtim.Sec)
	}
	if st := lstat(t, dir, "owned/link"); st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Uid != 77 {
		t.Errorf("link %o of %d", st.Mode, st.Uid)
	}
	if a, b := lstat(t, dir, "first"), lstat(t, dir, "owned/second"); a.Ino != b.Ino || a.Nlink != 2 {
		t.Errorf("hard link %d, %d", a.Ino, b.Ino)
	}
	lstat(t, dir, "absolute")
	lstat(t, dir, "dotted")
	if l.Entries != 10 || l.Inodes < 8 || l.Bytes == 0 {
		t.Errorf("got layer %+v", l)
	}
}

// TestHardLinkCapabilities unpacks hard links to a file with capabilities. The entry of the link has
// the capabilities in some cases, and lacks them in others.
func TestHardLinkCapabilities(t *testing.T) {
	caps := map[string]string{xattrRecord + capability: "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	with := func(e imagetest.Entry, records map[string]string) imagetest.Entry {
		e.PAXRecords = records
		return e
	}
	for name, entries := range map[string][]imagetest.Entry{
		"in the file":                       {with(imagetest.File("bin/ping", "elf"), caps), imagetest.HardLink("ping4", "bin/ping")},
		"in file and link":                  {with(imagetest.File("bin/ping", "elf"), caps), with(imagetest.HardLink("ping4", "bin/ping"), caps)},
		"in the link":                       {imagetest.File("bin/ping", "elf"), with(imagetest.HardLink("ping4", "bin/ping"), caps)},
		"through an absolute symbolic link": {with(imagetest.File("bin/ping", "elf"), caps), imagetest.Symlink("sbin", "/bin"), imagetest.HardLink("ping4", "/sbin/ping")},
		"two links":                         {with(imagetest.File("bin/ping", "elf"), caps), imagetest.HardLink("ping6", "bin/ping"), imagetest.HardLink("ping4", "ping6")},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := unpackEntries(t, entries...)
			for _, file := range []string{"bin/ping", "ping4"} {
				if got := xattr(t, capability, dir, file); got != caps[xattrRecord+capability] {
					t.Errorf("%s of %s: got %q", capability, file, got)
				}
			}
		})
	}
	// A FIFO cannot have these attributes.
	fifo := imagetest.Entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}}
	unpackEntries(t, fifo, with(imagetest.HardLink("other", "fifo"), map[string]string{xattrRecord + "user.note": "x", xattrRecord + capability: "x"}))
}

func TestUnpackWhiteouts(t *testing.T) {
	w := func(name string) imagetest.Entry { return imagetest.File(name, "") }
	dir, l := unpackEntries(t,
		w(".wh.removed"), imagetest.Dir("d"), w("d/.wh.x"), w("o/.wh..wh..opq"), imagetest.File("o/new", ""),
		w(".wh.dirfirst"), imagetest.Dir("dirfirst"), imagetest.File("dirfirst/f", ""),
		imagetest.Dir("dirlast"), imagetest.File("dirlast/f", ""), w(".wh.dirlast"),
		w(".wh.implied"), imagetest.File("implied/f", ""),
		w(".wh.filefirst"), imagetest.File("filefirst", "stays"),
		imagetest.File("filelast", "stays"), w(".wh.filelast"),
		imagetest.Dir(".wh..wh.plnk"), imagetest.File(".wh..wh.plnk/1.2", "aufs"), imagetest.File(".wh..wh.aufs", ""))
	for _, name := range []string{"removed", "d/x"} {
		if !isWhiteout(lstat(t, dir, name)) {
			t.Errorf("%s is not a whiteout", name)
		}
	}
	for _, name := range []string{"o", "dirfirst", "dirlast", "implied"} {
		if xattr(t, opaqueXattr, dir, name) != "y" {
			t.Errorf("%s is not opaque", name)
		}
	}
	for _, name := range []string{"filefirst", "filelast"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); string(b) != "stays" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for _, name := range []string{".wh..wh.plnk", ".wh..wh.aufs", "o/.wh..wh..opq"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s exists", name)
		}
	}
	if l.OpaqueRoot || strings.Join(sorted(l.Implied), " ") != ". implied o" {
		t.Errorf("layer %+v", l)
	}
}

func TestUnpackRoot(t *testing.T) {
	root := imagetest.DirMode(".", 5, 0o1750)
	root.PAXRecords = map[string]string{xattrRecord + "user.note": "root"}
	dir, l := unpackEntries(t, root, imagetest.File("a", ""), imagetest.File(".wh..wh..opq", ""))
	if st := lstat(t, dir); st.Uid != 5 || st.Mode != unix.S_IFDIR|0o1750 || xattr(t, "user.note", dir) != "root" {
		t.Errorf("root %o of %d", st.Mode, st.Uid)
	}
	if !l.OpaqueRoot || len(l.Implied) > 0 {
		t.Errorf("layer %+v", l)
	}
}

// TestUnpackSparse unpacks sparse files in both formats of GNU tar.
func TestUnpackSparse(t *testing.T) {
	for _, name := range []string{"sparse-gnu.tar", "sparse-pax.tar"} {
		blob, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		dir, l, err := unpackBytes(t, blob, testLimits)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "sparse"))
		if err != nil || len(b) != 1<<20 || !bytes.HasSuffix(b, []byte("end")) || strings.Trim(string(b[:len(b)-3]), "\x00") != "" {
			t.Errorf("%s: read %d bytes, %v", name, len(b), err)
		}
		if _, _, err := unpackBytes(t, blob, Limits{Entries: 10, Bytes: 1 << 19}); !errdefs.IsResourceExhausted(err) {
			t.Errorf("%s: limit of bytes does not include holes: %v, layer %+v", name, err, l)
		}
	}
}
