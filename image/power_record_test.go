package image

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// TestPowerCutDuringRecordUpdate pulls an image with a layer of another image as another blob, and
// cuts the power before the pull ends, when the file system has written its journal but not the
// data of files. The pull replaces the record of the layer. The first image must not be damaged.
func TestPowerCutDuringRecordUpdate(t *testing.T) {
	needRoot(t)
	for name, disk := range map[string]func(testing.TB) disk{
		"ext4": func(tb testing.TB) disk { return newExt4(tb, ",noauto_da_alloc") },
		"xfs":  newXFS,
	} {
		t.Run(name, func(t *testing.T) {
			reg := imagetest.NewRegistry(t)
			tar := imagetest.Tar(t, imagetest.File("shared", "content"))
			late := imagetest.Files(t, imagetest.File("late", noise(1<<20)))
			reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{imagetest.Gzip(t, tar)}})
			reg.Push("b", "1", imagetest.Image{Layers: []imagetest.Layer{imagetest.Zstd(t, tar), late}})
			d := disk(t)
			b := newBed(t, reg)
			b.cfg.Root = filepath.Join(d.dir, "root")
			b.restart(t)
			first := b.pull(t, reg.Host+"/a:1")
			release := make(chan struct{})
			reg.Set(onBlob(late.Digest(), func(w http.ResponseWriter, _ *http.Request, blob []byte) {
				<-release
				_, _ = w.Write(blob)
			}))
			done := make(chan error, 1)
			go func() {
				_, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/b:1"})
				done <- err
			}()
			eventually(t, "the second blob of the layer", func() bool {
				l, _ := b.layers.Get(first.Layers[0].DiffID)
				return len(l.Blobs) == 2
			})
			syncOther(t, filepath.Join(d.dir, "other"))
			after := d.cut(t)
			close(release)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			next := after.boot(t, b.cfg)
			if found, err := next.Check(t.Context(), false); err != nil || len(found) > 0 {
				t.Errorf("got problems %+v, %v", found, err)
			}
			got, err := next.Get(reg.Host + "/a:1")
			if err != nil {
				t.Fatal(err)
			}
			root, container := next.mount(t, got)
			equal(t, "file", read(t, root, "shared"), "content")
			if err := next.UnmountRootFS(t.Context(), container); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// syncOther syncs another file, which also writes the journal of the file system.
func syncOther(tb testing.TB, path string) {
	tb.Helper()
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("x"); err != nil {
		tb.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		tb.Fatal(err)
	}
}
