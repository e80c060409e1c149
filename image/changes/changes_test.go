package changes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bed is an overlay with two lower layers.
type bed struct {
	tb     testing.TB
	dir    string
	merged string
}

func newBed(tb testing.TB, options string) *bed {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("mounts overlay: must be root")
	}
	b := &bed{tb: tb, dir: tb.TempDir()}
	b.merged = filepath.Join(b.dir, "merged")
	for _, name := range []string{"low1", "low2", "upper", "work", "merged"} {
		b.must(os.Mkdir(filepath.Join(b.dir, name), 0o755))
	}
	b.write("low1/etc/hosts", "hosts")
	b.write("low1/etc/passwd", "root")
	b.write("low1/bin/su", "su")
	b.write("low1/var/cache/a", "aaaa")
	b.write("low1/var/lib/x/y", "y")
	b.write("low1/gone/below", "b")
	b.write("low2/var/cache/b", "bb")
	b.write("low2/bin/sh", "#!")
	b.must(unix.Mknod(filepath.Join(b.dir, "low2/gone"), unix.S_IFCHR, 0)) // the image itself hides /gone
	data := fmt.Sprintf("lowerdir=%[1]s/low2:%[1]s/low1,upperdir=%[1]s/upper,workdir=%[1]s/work%[2]s", b.dir, options)
	b.must(unix.Mount("overlay", b.merged, "overlay", 0, data))
	tb.Cleanup(func() { b.must(unix.Unmount(b.merged, 0)) })
	return b
}

func (b *bed) must(err error) {
	b.tb.Helper()
	if err != nil {
		b.tb.Fatal(err)
	}
}

func (b *bed) write(name, content string) {
	b.tb.Helper()
	name = filepath.Join(b.dir, name)
	b.must(os.MkdirAll(filepath.Dir(name), 0o755))
	b.must(os.WriteFile(name, []byte(content), 0o644)) //nolint:gosec // a file of an image
}

func (b *bed) layers() Layers {
	return Layers{Upper: filepath.Join(b.dir, "upper"), Lower: []string{filepath.Join(b.dir, "low2"), filepath.Join(b.dir, "low1")}}
}

// compare returns the changes as lines.
func (b *bed) compare(l Layers) ([]string, Summary) {
	b.tb.Helper()
	var lines []string
	s, err := Compare(b.tb.Context(), l, func(c Change) error { lines = append(lines, line(c)); return nil })
	b.must(err)
	return lines, s
}

func line(c Change) string {
	s := fmt.Sprintf("%c %s %s %d", "?ACR"[c.Kind], c.Path, c.Type, c.Size)
	for note, set := range map[string]bool{" metadata": c.Metadata, " opaque": c.Opaque, " link": c.HardLink} {
		if set {
			s += note
		}
	}
	if c.From != "" {
		s += " from " + c.From
	}
	return s
}

func (b *bed) expect(got []string, want ...string) {
	b.tb.Helper()
	if !slices.Equal(got, want) {
		b.tb.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestCompare(t *testing.T) {
	b := newBed(t, ",redirect_dir=off,metacopy=off,index=off")
	at := func(name string) string { return filepath.Join(b.merged, name) }
	got, _ := b.compare(b.layers())
	b.expect(got)

	b.write("merged/etc/new", "new file")
	b.write("merged/etc/hosts", "more hosts")
	b.must(os.Remove(at("etc/passwd")))
	b.must(os.Chmod(at("bin/su"), 0o4755))
	b.must(os.Chmod(at("var/lib"), 0o700))
	b.must(os.Link(at("bin/sh"), at("bin/shell")))
	b.must(os.RemoveAll(at("var/cache")))
	b.must(os.MkdirAll(at("var/cache"), 0o755))
	b.write("merged/var/cache/b", "bbb")
	b.must(os.Mkdir(at("gone"), 0o755)) // opaque, but the image shows nothing here
	b.must(unix.Mkfifo(at("fifo"), 0o600))
	b.must(unix.Mknod(at("sock"), unix.S_IFSOCK|0o600, 0))
	b.must(os.Symlink("/etc/shadow", at("link")))
	got, s := b.compare(b.layers())
	b.expect(got,
		"C /bin/sh file 2 metadata", "A /bin/shell file 2 link", "C /bin/su file 2 metadata",
		"C /etc/hosts file 10", "A /etc/new file 8", "R /etc/passwd file 4",
		"A /fifo fifo 0", "A /gone directory 0", "A /link symlink 0", "A /sock socket 0",
		"R /var/cache directory 0 opaque", "C /var/cache/b file 3", "C /var/lib directory 0 metadata",
	)
	want := Summary{Added: Total{6, 8}, Changed: Total{5, 17}, Removed: Total{2, 4}}
	if s != want {
		t.Errorf("got summary %+v, want %+v", s, want)
	}
}

// TestCompareRenamed checks a directory that overlay has renamed without a copy.
func TestCompareRenamed(t *testing.T) {
	b := newBed(t, ",redirect_dir=on,metacopy=off,index=off")
	b.must(os.Rename(filepath.Join(b.merged, "var/lib"), filepath.Join(b.merged, "lib")))
	b.must(os.Rename(filepath.Join(b.merged, "var/cache"), filepath.Join(b.merged, "var/pool")))
	b.write("merged/lib/x/y", "changed")
	b.write("merged/var/pool/c", "c")
	got, _ := b.compare(b.layers())
	b.expect(got,
		"A /lib directory 0 from /var/lib", "C /lib/x/y file 7",
		"R /var/cache directory 0", "R /var/lib directory 0",
		"A /var/pool directory 0 from /var/cache", "A /var/pool/c file 1",
	)
}

// TestCompareMapped checks that the owner of a directory is compared through the map of ids.
func TestCompareMapped(t *testing.T) {
	b := newBed(t, "")
	for _, name := range []string{"upper", "upper/etc", "upper/bin"} {
		b.must(os.MkdirAll(filepath.Join(b.dir, name), 0o755))
		b.must(os.Chown(filepath.Join(b.dir, name), 100000, 100000))
	}
	b.must(os.Chown(filepath.Join(b.dir, "upper/bin"), 0, 100000))
	l := b.layers()
	l.MapUID = func(id uint32) uint32 { return id + 100000 }
	l.MapGID = l.MapUID
	got, _ := b.compare(l)
	b.expect(got, "C /bin directory 0 metadata")
}

// TestCompareStaysInside checks that symbolic links in the layers are not followed.
func TestCompareStaysInside(t *testing.T) {
	b := newBed(t, "")
	outside := t.TempDir()
	b.must(os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600))
	b.must(os.Symlink(outside, filepath.Join(b.dir, "upper/dir")))
	b.must(os.Symlink(outside, filepath.Join(b.dir, "low2/etc")))
	b.must(os.MkdirAll(filepath.Join(b.dir, "upper/etc"), 0o755))
	b.write("upper/etc/secret", "x")
	got, _ := b.compare(b.layers())
	b.expect(got, "A /dir symlink 0", "C /etc directory 0", "A /etc/secret file 1")
}

func TestCompareEnds(t *testing.T) {
	b := newBed(t, "")
	b.write("merged/a", "x")
	b.write("merged/b", "x")
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	s, err := Compare(late, b.layers(), func(Change) error { return nil })
	if err != nil || !s.Incomplete {
		t.Errorf("after the deadline: got %+v, %v, want an incomplete summary", s, err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := Compare(gone, b.layers(), func(Change) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller has left: got %v", err)
	}
	failed := errors.New("broken pipe")
	if _, err := Compare(t.Context(), b.layers(), func(Change) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("failed emit: got %v", err)
	}
	if _, err := Compare(t.Context(), Layers{Upper: filepath.Join(b.dir, "none")}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no writable layer: got %v", err)
	}
}

// TestCompareDuringChanges checks that files that come and go are no errors.
func TestCompareDuringChanges(t *testing.T) {
	b := newBed(t, "")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			dir := filepath.Join(b.merged, "tmp")
			for i := range 20 {
				_ = os.MkdirAll(filepath.Join(dir, fmt.Sprint(i), "d"), 0o755)
			}
			_ = os.RemoveAll(dir)
			_ = os.Symlink("/", dir)
			_ = os.Remove(dir)
		}
	}()
	for range 200 {
		if _, s := b.compare(b.layers()); s.Skipped != 0 || s.Incomplete {
			t.Errorf("got %+v", s)
			break
		}
	}
	close(stop)
	<-done
}
