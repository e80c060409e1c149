package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// archiveBed is a bed with an archive directory.
type archiveBed struct {
	*bed
	archives string
}

func newArchiveBed(t *testing.T) archiveBed {
	t.Helper()
	b := archiveBed{newBed(t), t.TempDir()}
	b.cfg.ArchiveDirs = []string{b.archives}
	b.restart(t)
	return b
}

// put writes an archive of an image with one tag.
func (b archiveBed) put(t *testing.T, file, name, content string) string {
	t.Helper()
	data := imagetest.Tar(t, imagetest.OCIEntries(t, imagetest.Named{Names: []string{name}, Image: app(t, "b", content)})...)
	if strings.HasSuffix(file, ".gz") {
		data = imagetest.Gzip(t, data).Blob
	}
	return write(t, filepath.Join(b.archives, file), string(data))
}

func (b archiveBed) scan(t *testing.T) ArchiveStatus {
	t.Helper()
	b.LoadArchives(t.Context())
	return b.ArchiveStatus()
}

// spoil replaces the content of a file and keeps everything by which a changed file is recognized.
func spoil(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, info.Size())); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
}

func (b archiveBed) pinned(t *testing.T, name string) bool {
	t.Helper()
	img, err := b.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return img.Pinned
}

func TestLoadArchives(t *testing.T) {
	b := newArchiveBed(t)
	first := b.put(t, "first.tar", "first:1", "1")
	b.put(t, "second.tar.gz", "second:1", "2")
	write(t, filepath.Join(b.archives, "broken.tar"), "broken")
	write(t, filepath.Join(b.archives, ".partial.tar"), "partial")
	write(t, filepath.Join(b.archives, "README"), "text")
	if err := os.Mkdir(filepath.Join(b.archives, "dir.tar"), 0o755); err != nil {
		t.Fatal(err)
	}
	st := b.scan(t)
	if st.Archives != 2 || st.Images != 2 || len(st.Failures) != 2 || filepath.Base(st.Failures[0].Path) != "broken.tar" || filepath.Base(st.Failures[1].Path) != "dir.tar" {
		t.Fatalf("got %+v", st)
	}
	equal(t, "first image is pinned", b.pinned(t, "first:1"), true)
	equal(t, "second image is pinned", b.pinned(t, "second:1"), true)

	// Files that have not changed are not read again, also by the next process.
	spoil(t, first)
	b.restart(t)
	equal(t, "image is pinned after a restart", b.pinned(t, "first:1"), true)
	st = b.scan(t)
	equal(t, "failures", len(st.Failures), 2)

	// If an image was removed, its archive is read again. The archive is damaged now.
	if err := b.Remove(t.Context(), "first:1"); err != nil {
		t.Fatal(err)
	}
	st = b.scan(t)
	equal(t, "failures", len(st.Failures), 3)

	// A changed archive is read again, and the former image is no longer pinned.
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	b.put(t, "second.tar.gz", "second:1", "changed")
	st = b.scan(t)
	if st.Archives != 1 || st.Images != 1 || len(st.Failures) != 2 {
		t.Errorf("got %+v", st)
	}
	pinned := 0
	for _, img := range b.List() {
		if img.Pinned {
			pinned++
			equalList(t, "tags of the pinned image", img.RepoTags, []string{"docker.io/library/second:1"})
		}
	}
	equal(t, "pinned images", pinned, 1)

	// Without its archive, an image is not pinned.
	if err := os.Remove(filepath.Join(b.archives, "second.tar.gz")); err != nil {
		t.Fatal(err)
	}
	b.scan(t)
	equal(t, "image without its archive is pinned", b.pinned(t, "second:1"), false)
}

// TestArchiveDirUnreadable checks that images stay pinned if their directory cannot be read.
func TestArchiveDirUnreadable(t *testing.T) {
	b := newArchiveBed(t)
	b.put(t, "a.tar", "a:1", "1")
	b.scan(t)
	moved := b.archives + "-moved"
	if err := os.Rename(b.archives, moved); err != nil {
		t.Fatal(err)
	}
	b.restart(t)
	st := b.scan(t)
	if len(st.Failures) != 1 || st.Failures[0].Path != b.archives {
		t.Errorf("got failures %+v", st.Failures)
	}
	equal(t, "image is pinned", b.pinned(t, "a:1"), true)
	if err := os.Rename(moved, b.archives); err != nil {
		t.Fatal(err)
	}
	equal(t, "failures", len(b.scan(t).Failures), 0)
	cfg := b.cfg
	cfg.ArchiveDirs = nil
	if err := b.Update(cfg); err != nil {
		t.Fatal(err)
	}
	b.scan(t)
	equal(t, "image of a directory that is not configured is pinned", b.pinned(t, "a:1"), false)
}

// TestArchiveOwner checks that archives that other users can write are refused.
func TestArchiveOwner(t *testing.T) {
	for name, damage := range map[string]func(dir, file string) error{
		"file that all users can write":      func(_, file string) error { return os.Chmod(file, 0o666) },
		"file of another user":               func(_, file string) error { return os.Chown(file, 1000, 0) },
		"directory that all users can write": func(dir, _ string) error { return os.Chmod(dir, 0o777) },
		"directory of another user":          func(dir, _ string) error { return os.Chown(dir, 1000, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newArchiveBed(t)
			if err := damage(b.archives, b.put(t, "a.tar", "a:1", "1")); err != nil {
				t.Fatal(err)
			}
			if st := b.scan(t); len(st.Failures) != 1 || len(b.List()) != 0 {
				t.Errorf("got %+v and %d images", st, len(b.List()))
			}
		})
	}
}

// TestArchivePolicy checks the scopes of archives in a directory.
func TestArchivePolicy(t *testing.T) {
	b := newArchiveBed(t)
	path := b.put(t, "a.tar", "a:1", "1")
	for scope, loaded := range map[string]int{path: 1, filepath.Dir(path): 1, "/other": 0} {
		write(t, b.cfg.PolicyPath, `{"default":[{"type":"reject"}],"transports":{"oci-archive":{"`+scope+`":[{"type":"insecureAcceptAnything"}]}}}`)
		b.scan(t)
		equal(t, "images with the scope "+scope, len(b.List()), loaded)
		for _, img := range b.List() {
			if err := b.Remove(t.Context(), img.ID.String()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestArchiveRecords checks that records that cannot be read are replaced.
func TestArchiveRecords(t *testing.T) {
	b := newArchiveBed(t)
	b.put(t, "a.tar", "a:1", "1")
	b.scan(t)
	for _, content := range []string{"", "{", `{"version":99,"archives":{}}`} {
		write(t, b.Manager.dir(archivesFile), content)
		b.restart(t)
		st := b.scan(t)
		if st.Archives != 1 || len(st.Failures) != 0 || !b.pinned(t, "a:1") {
			t.Errorf("records %q: got %+v", content, st)
		}
	}
	if old := time.Now().Add(-time.Hour); os.Chtimes(filepath.Join(b.archives, "a.tar"), old, old) != nil {
		t.Fatal("change the time of the archive")
	}
	equal(t, "archives", b.scan(t).Archives, 1)
}
