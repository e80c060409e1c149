package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// disk is a file system in a file. After a power cut it has only the data that was written to the file.
type disk struct{ file, dir, options string }

// diskSize is the minimum size for mkfs.xfs.
const diskSize = 300 << 20

func newDisk(tb testing.TB, options string, mkfs ...string) disk {
	tb.Helper()
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		tb.Skip("the kernel has no loop devices: ", err)
	}
	d := disk{filepath.Join(tb.TempDir(), "disk"), tb.TempDir(), options}
	write(tb, d.file, "")
	if err := os.Truncate(d.file, diskSize); err != nil {
		tb.Fatal(err)
	}
	command(tb, mkfs[0], append(mkfs[1:], d.file)...)
	d.mount(tb)
	return d
}

// newExt4 returns a disk whose file system does not write data back for some time.
func newExt4(tb testing.TB, options string) disk {
	tb.Helper()
	return newDisk(tb, "commit=600"+options, "mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1")
}

func newXFS(tb testing.TB) disk {
	tb.Helper()
	// The copy of a disk has the same UUID as the disk.
	return newDisk(tb, "nouuid", "mkfs.xfs", "-q")
}

func (d disk) mount(tb testing.TB) {
	tb.Helper()
	command(tb, "mount", "-o", "loop,"+d.options, d.file, d.dir)
	tb.Cleanup(func() {
		if err := unix.Unmount(d.dir, 0); err != nil {
			tb.Error(err)
		}
	})
}

// cut returns the disk as it is after a power cut at this moment.
func (d disk) cut(tb testing.TB) disk {
	tb.Helper()
	after := disk{filepath.Join(tb.TempDir(), "disk"), tb.TempDir(), d.options}
	from, err := os.Open(d.file)
	if err != nil {
		tb.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(after.file)
	if err != nil {
		tb.Fatal(err)
	}
	defer to.Close()
	block, none := make([]byte, 64<<10), make([]byte, 64<<10)
	for offset := int64(0); ; offset += int64(len(block)) {
		n, err := from.ReadAt(block, offset)
		if err == nil && !bytes.Equal(block, none) {
			_, err = to.WriteAt(block[:n], offset)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.Truncate(after.file, diskSize); err != nil {
		tb.Fatal(err)
	}
	after.mount(tb)
	return after
}

func command(tb testing.TB, name string, args ...string) {
	tb.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		tb.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// boot starts a manager on the disk, with another boot id than that with which the layers were unpacked.
func (d disk) boot(tb testing.TB, cfg Config) *bed {
	tb.Helper()
	cfg.Root = filepath.Join(d.dir, "root")
	records, err := filepath.Glob(filepath.Join(cfg.Root, layersDir, "*", "layer.json"))
	if err != nil {
		tb.Fatal(err)
	}
	for _, path := range records {
		record := read(tb, path)
		if _, rest, ok := strings.Cut(record, `"bootID":"`); ok && len(rest) > 36 {
			write(tb, path, strings.Replace(record, rest[:36], "of-before", 1))
		}
	}
	b := &bed{dir: d.dir, cfg: cfg}
	b.restart(tb)
	return b
}

// TestPowerCut cuts the power during and after pulls. In the next boot, an image whose pull has
// returned must be complete, and an image whose pull has not returned must be complete or absent.
func TestPowerCut(t *testing.T) {
	needRoot(t)
	for name, disk := range map[string]func(testing.TB) disk{
		"ext4": func(tb testing.TB) disk { return newExt4(tb, "") }, "xfs": newXFS,
	} {
		t.Run(name, func(t *testing.T) { powerCut(t, disk(t)) })
	}
}

func powerCut(t *testing.T, d disk) {
	reg := imagetest.NewRegistry(t)
	img, content := three(t), noise(1<<20)
	big := imagetest.Files(t, imagetest.File("noise", content))
	img.Layers = append(img.Layers, big)
	reg.Push("a", "1", img)
	ref := reg.Host + "/a:1"
	b := newBed(t, reg)
	b.cfg.Root = filepath.Join(d.dir, "root")
	b.restart(t)
	sound := func(t *testing.T, b *bed, there bool) {
		t.Helper()
		equal(t, "image exists in the next boot", len(b.List()) == 1, there)
		equal(t, "leftovers in the staging directory", len(names(t, b.Manager.dir(stageDir))), 0)
		if !there {
			equal(t, "layers without an image", b.layerCount(t), 0)
			b.pull(t, ref)
		}
		if found, err := b.Check(t.Context(), false); err != nil || len(found) > 0 {
			t.Errorf("got problems %+v, %v", found, err)
		}
		got, err := b.Get(ref)
		if err != nil {
			t.Fatal(err)
		}
		root, container := b.mount(t, got)
		equal(t, "file", read(t, root, "etc/a"), "upper")
		equal(t, "content", read(t, root, "noise") == content, true)
		if err := b.UnmountRootFS(t.Context(), container); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("in a pull", func(t *testing.T) {
		asked, release := make(chan struct{}), make(chan struct{})
		reg.Set(onBlob(big.Digest(), func(w http.ResponseWriter, _ *http.Request, blob []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
			_, _ = w.Write(blob[:len(blob)/2])
			w.(http.Flusher).Flush()
			asked <- struct{}{}
			<-release
			_, _ = w.Write(blob[len(blob)/2:])
		}))
		done := make(chan error, 1)
		go func() {
			_, err := b.Pull(t.Context(), PullRequest{Ref: ref})
			done <- err
		}()
		<-asked
		eventually(t, "the other layers", func() bool { return b.layerCount(t) == 3 })
		after := d.cut(t)
		close(release)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		reg.Set(imagetest.Faults{})
		sound(t, after.boot(t, b.cfg), false)
	})
	t.Run("after a pull", func(t *testing.T) {
		sound(t, d.cut(t).boot(t, b.cfg), true)
	})
	t.Run("after a tag has moved", func(t *testing.T) {
		changed := img
		changed.Comment = "rebuilt"
		reg.Push("a", "1", changed)
		id := b.pull(t, ref).ID
		next := d.cut(t).boot(t, b.cfg)
		got, err := next.Get(ref)
		if err != nil || got.ID != id {
			t.Errorf("image of the tag: got %s, want %s, %v", got.ID, id, err)
		}
		if found, err := next.Check(t.Context(), false); err != nil || len(found) > 0 {
			t.Errorf("got problems %+v, %v", found, err)
		}
	})
	t.Run("after a removal", func(t *testing.T) {
		for _, i := range b.List() {
			if err := b.Remove(t.Context(), i.ID.String()); err != nil {
				t.Fatal(err)
			}
		}
		// The removal was not synced, so it may be undone, but only completely.
		next := d.cut(t).boot(t, b.cfg)
		if found, err := next.Check(t.Context(), false); err != nil || len(found) > 0 {
			t.Errorf("got problems %+v, %v", found, err)
		}
		if _, err := next.Get(ref); err != nil && !errdefs.IsNotFound(err) {
			t.Error(err)
		}
		next.pull(t, ref)
	})
}
