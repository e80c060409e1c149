package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// killedLoadVar is the environment variable that makes this test binary the process that is killed.
const killedLoadVar = "IMAGE_TEST_KILLED_LOAD"

// TestKilledLoad is the process that TestKillDuringLoad kills. It loads and removes an image until it is killed.
func TestKilledLoad(t *testing.T) {
	dir := os.Getenv(killedLoadVar)
	if dir == "" {
		t.Skip("runs only as a child of TestKillDuringLoad")
	}
	b := &bed{dir: dir, cfg: killedConfig(dir)}
	b.restart(t)
	go func() { _ = b.Run(context.Background()) }()
	data, err := os.ReadFile(filepath.Join(dir, "archive.tar"))
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		b.load(t, data, "")
		if err := b.Remove(context.Background(), "registry.test/a:1"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKillDuringLoad kills a process at random times during a load or a removal. The next process must have either the
// complete image or none, no temporary archive, and no layer that stays after the resume window.
func TestKillDuringLoad(t *testing.T) {
	b := newBed(t)
	img := three(t)
	for _, name := range []string{"x", "y", "z"} {
		img.Layers = append(img.Layers, imagetest.Files(t, imagetest.File(name, name+noise(1<<20))))
	}
	data := imagetest.Gzip(t, imagetest.Tar(t, imagetest.OCIEntries(t, imagetest.Named{Names: []string{"registry.test/a:1"}, Image: img})...)).Blob
	write(t, filepath.Join(b.dir, "archive.tar"), string(data))
	rnd := seededRand(t)
	for i := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledLoad$", "-test.v")
		cmd.Env = append(os.Environ(), killedLoadVar+"="+b.dir)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a load", func() bool {
			return len(names(t, b.Manager.dir(stageDir))) > 0 || len(names(t, b.Manager.dir(imagesDir))) > 0
		})
		time.Sleep(time.Duration(rnd.IntN(300)) * time.Millisecond)
		err := errors.Join(cmd.Process.Kill(), cmd.Wait())
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("process ended before it was killed: %v\n%s", err, out.String())
		}
		b.restart(t)
		if staged := names(t, b.Manager.dir(stageDir)); len(staged) > 0 {
			t.Errorf("run %d: leftovers in the staging directory: %v", i, staged)
		}
		if found, err := b.Check(t.Context(), false); err != nil || len(found) > 0 {
			t.Errorf("run %d: got problems %+v, %v", i, found, err)
		}
	}
	for _, img := range b.List() {
		if err := b.Remove(t.Context(), img.ID.String()); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.layers.DropOlder(t.Context(), time.Now()); err != nil {
		t.Error(err)
	}
	equal(t, "layers after the resume window", b.layerCount(t), 0)
	root, _ := b.mount(t, b.load(t, data, "")[0].Image)
	equal(t, "file", read(t, root, "etc/a"), "upper")
}

// TestLoadFullDisk loads an archive that does not fit on the disk, and one whose layers do not fit.
func TestLoadFullDisk(t *testing.T) {
	b := newBed(t)
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	b.cfg.Root, b.cfg.SpoolReserve = root, 1
	b.restart(t)
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("a file of the full disk is still open: %v", err)
		}
	})
	large := imagetest.Tar(t, imagetest.File("large", noise(12<<20)))
	for name, img := range map[string]imagetest.Image{
		"archive": {Layers: []imagetest.Layer{imagetest.Plain(imagetest.Tar(t, imagetest.File("a", "a"))), imagetest.Plain(large)}},
		"layers":  {Layers: []imagetest.Layer{imagetest.Files(t, imagetest.File("zeros", string(make([]byte, 12<<20))))}},
	} {
		data := imagetest.Tar(t, imagetest.OCIEntries(t, imagetest.Named{Names: []string{"a:1"}, Image: img})...)
		_, err := b.Load(t.Context(), LoadRequest{Archive: bytes.NewReader(data)})
		if !errdefs.IsResourceExhausted(err) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := b.EmptyTrash(t.Context()); err != nil {
			t.Error(err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(root, &st); err != nil || st.Blocks-st.Bfree > 32 {
			t.Errorf("%s: %d blocks are in use after the failure, %v", name, st.Blocks-st.Bfree, err)
		}
		equal(t, "layers", b.layerCount(t), 0)
		if staged := names(t, b.Manager.dir(stageDir)); len(staged) > 0 {
			t.Errorf("%s: leftovers in the staging directory: %v", name, staged)
		}
	}
	small := imagetest.Tar(t, imagetest.OCIEntries(t, imagetest.Named{Names: []string{"a:1"}, Image: app(t, "b", "1")})...)
	b.load(t, small, "")
	b.restart(t)
	equal(t, "images", len(b.List()), 1)
	b.cfg.Root = filepath.Join(b.dir, "root")
	b.restart(t) // for the check for leaks
}
