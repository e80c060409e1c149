package restore

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/sandbox"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// unpackArchive unpacks an archive, as other programs do when they make an image, and returns the id of the image.
func (b *bed) unpackArchive(path string) (id string) {
	b.t.Helper()
	b.unpacked = b.t.TempDir()
	dir := filepath.Join(b.unpacked, "sha256:2")
	if err := os.MkdirAll(filepath.Join(dir, archive.ImageDir), 0o700); err != nil {
		b.t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return "sha256:2"
		}
		content, readErr := io.ReadAll(r)
		if err := errors.Join(err, readErr); err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, h.Name), content, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

// TestCreateContainerFromImage checks which unpacked archives can be restored.
func TestCreateContainerFromImage(t *testing.T) {
	b := newBed(t)
	b.pods.list = []*sandbox.Pod{{ID: "pod", RuntimeHandler: "runc"}, {ID: "other", RuntimeHandler: "crun"}}
	key, err := archive.MakeKey(b.cfg.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	valid := b.writeArchive(testFiles(t, "a"), key)
	create := func(pod string) (string, error) {
		config := &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "new"}, Image: &cri.ImageSpec{Image: "registry.test/checkpoint:1"}}
		return b.CreateContainerFromImage(t.Context(), pod, config, b.unpackedID)
	}
	b.unpackedID = b.unpackArchive(valid)
	if _, err := create("pod"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "restore_from_archives") {
		t.Errorf("archives are not allowed: got %v", err)
	}
	b.archives = true
	if id, err := create("pod"); err != nil || id != "id-new" || b.containers.image != "sha256:1" {
		t.Errorf("got %q of the image %q, %v", id, b.containers.image, err)
	}
	if got, err := os.ReadFile(filepath.Join(b.containers.rootfs, "etc/new")); err != nil || string(got) != "new" {
		t.Errorf("changed file: got %q, %v", got, err)
	}
	if _, err := create("other"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pod with another handler: got %v", err)
	}
	core := archive.ImagePath("core-1.img")
	outside := filepath.Join(t.TempDir(), "core-1.img")
	for name, tc := range map[string]struct {
		change func(dir string) error
		is     func(error) bool
	}{
		"more files":   {func(d string) error { return os.WriteFile(d+"/checkpoint/core-2.img", []byte("x"), 0o600) }, func(err error) bool { return err == nil }},
		"no list":      {func(d string) error { return os.Remove(d + "/" + archive.FilesFile) }, errdefs.IsFailedPrecondition},
		"changed list": {func(d string) error { return edit(d+"/"+archive.FilesFile, core, "checkpoint/core-2.img") }, errdefs.IsFailedPrecondition},
		"no JSON":      {func(d string) error { return os.WriteFile(d+"/"+archive.FilesFile, []byte("x"), 0o600) }, errdefs.IsInvalidArgument},
		"changed":      {func(d string) error { return edit(d+"/"+archive.SpecFile, "/app", "/abb") }, errdefs.IsDataLoss},
		"changed info": {func(d string) error { return edit(d+"/"+archive.InfoFile, "runc", "crun") }, errdefs.IsDataLoss},
		"truncated":    {func(d string) error { return os.Truncate(d+"/"+core, 9) }, errdefs.IsDataLoss},
		"missing":      {func(d string) error { return os.Remove(d + "/" + core) }, errdefs.IsDataLoss},
		"fifo":         {func(d string) error { return errors.Join(os.Remove(d+"/"+core), unix.Mkfifo(d+"/"+core, 0o600)) }, errdefs.IsInvalidArgument},
		"device": {func(d string) error {
			return errors.Join(os.Remove(d+"/"+core), unix.Mknod(d+"/"+core, unix.S_IFCHR|0o600, 0x103))
		}, errdefs.IsInvalidArgument},
		"directory": {func(d string) error { return errors.Join(os.Remove(d+"/"+core), os.Mkdir(d+"/"+core, 0o700)) }, errdefs.IsInvalidArgument},
		"link to a file": {func(d string) error {
			return errors.Join(os.Rename(d+"/"+core, outside), os.Symlink(outside, d+"/"+core))
		}, errdefs.IsInvalidArgument},
		"link inside": {func(d string) error {
			return errors.Join(os.Rename(d+"/"+core, d+"/core"), os.Symlink("../core", d+"/"+core))
		}, errdefs.IsInvalidArgument},
		"link to the directory": {func(d string) error {
			return errors.Join(os.Rename(d+"/checkpoint", d+"/moved"), os.Symlink("moved", d+"/checkpoint"))
		}, errdefs.IsInvalidArgument},
		"link to the list": {func(d string) error {
			return errors.Join(os.Rename(d+"/"+archive.FilesFile, d+"/list"), os.Symlink("list", d+"/"+archive.FilesFile))
		}, errdefs.IsInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			b.unpackedID = b.unpackArchive(valid)
			if err := tc.change(filepath.Join(b.unpacked, b.unpackedID)); err != nil {
				t.Fatal(err)
			}
			if _, err := create("pod"); !tc.is(err) {
				t.Errorf("got %v", err)
			}
		})
	}
	for name, files := range map[string][]file{
		"/dev/shm":      replace(testFiles(t, "a"), archive.ShmFile, tarOf(t)),
		"no OCI config": replace(testFiles(t, "a"), archive.SpecFile, nil),
	} {
		b.unpackedID = b.unpackArchive(b.writeArchive(files, key))
		if _, err := create("pod"); !errdefs.IsFailedPrecondition(err) && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	b.unpackedID = b.unpackArchive(b.writeArchive(testFiles(t, "a"), bytes.Repeat([]byte{7}, 32)))
	if _, err := create("pod"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "not from this node") {
		t.Errorf("another key: got %v", err)
	}
}

// edit replaces a text in a file.
func edit(path, from, to string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Contains(raw, []byte(from)) {
		return errors.New("the text is missing")
	}
	return os.WriteFile(path, bytes.ReplaceAll(raw, []byte(from), []byte(to)), 0o600)
}
