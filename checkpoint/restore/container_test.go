package restore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/sandbox"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// writeArchive writes a signed archive and returns its path.
func (b *bed) writeArchive(files []file, key archive.Key) string {
	b.t.Helper()
	var out bytes.Buffer
	w := archive.NewWriter(b.t.Context(), &out, time.Now(), key)
	var errs []error
	for _, f := range files {
		errs = append(errs, w.Bytes(f.name, f.content))
	}
	_, err := w.Close()
	path := filepath.Join(b.t.TempDir(), "a.tar")
	if err := errors.Join(append(errs, err, os.WriteFile(path, out.Bytes(), 0o600))...); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// TestCreateContainer checks which archives CreateContainer accepts, and that only the image id comes from the archive.
func TestCreateContainer(t *testing.T) {
	b := newBed(t)
	b.pods.list = []*sandbox.Pod{{ID: "pod", RuntimeHandler: "runc"}, {ID: "other", RuntimeHandler: "crun"}}
	if !b.IsArchive("/a.tar") || b.IsArchive("busybox") {
		t.Error("an absolute path is an archive, and nothing else")
	}
	create := func(pod, path string) (string, error) {
		config := &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "new"}, Image: &cri.ImageSpec{Image: path}}
		return b.CreateContainer(t.Context(), pod, config)
	}
	if _, err := create("pod", "/none.tar"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "restore_from_archives") {
		t.Errorf("archives are not allowed: got %v", err)
	}
	b.archives = true
	if _, err := create("pod", "/none.tar"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("no key: got %v", err)
	}
	key, err := archive.MakeKey(b.cfg.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	valid := b.writeArchive(testFiles(t, "a"), key)
	if id, err := create("pod", valid); err != nil || id != "id-new" || b.containers.image != "sha256:1" {
		t.Errorf("got %q of the image %q, %v", id, b.containers.image, err)
	}
	link := filepath.Join(t.TempDir(), "link.tar")
	if err := os.Symlink(valid, link); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		pod, path string
		is        func(error) bool
	}{
		"missing":     {"pod", valid + ".none", errdefs.IsNotFound},
		"directory":   {"pod", filepath.Dir(valid), errdefs.IsInvalidArgument},
		"link":        {"pod", link, func(err error) bool { return err != nil }},
		"another key": {"pod", b.writeArchive(testFiles(t, "a"), bytes.Repeat([]byte{7}, 32)), errdefs.IsFailedPrecondition},
		"handler":     {"other", valid, errdefs.IsFailedPrecondition},
		"no pod":      {"none", valid, errdefs.IsNotFound},
		"/dev/shm":    {"pod", b.writeArchive(replace(testFiles(t, "a"), archive.ShmFile, tarOf(t)), key), errdefs.IsFailedPrecondition},
		"no info":     {"pod", b.writeArchive(replace(testFiles(t, "a"), archive.InfoFile, nil), key), errdefs.IsInvalidArgument},
		"another image": {
			"pod", b.writeArchive(replace(testFiles(t, "a"), archive.InfoFile, marshal(t, archive.ContainerInfo{
				Origin: testOrigin(), Container: archive.Container{Name: "a", ImageID: "sha256:2"},
			})), key), errdefs.IsFailedPrecondition,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := create(tc.pod, tc.path); !tc.is(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}
