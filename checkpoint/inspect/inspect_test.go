package inspect

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	testKey  = archive.Key(bytes.Repeat([]byte{1}, 32))
	otherKey = archive.Key(bytes.Repeat([]byte{2}, 32))
)

// writeArchive writes the archive of a container with the name.
func writeArchive(t testing.TB, path, name string) archive.File {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	w := archive.NewWriter(t.Context(), f, time.Now(), testKey)
	origin := archive.Origin{Version: archive.Version, Engine: "criserver 1", Runtime: archive.Runtime{Handler: "runc"}}
	container := archive.Container{ID: "id-" + name, Name: name, ImageRef: "r.example/a:1", ImageID: "sha256:" + name, Args: []string{"sleep", "1"}}
	must(t, w.JSON(archive.InfoFile, archive.ContainerInfo{Origin: origin, Container: container, Pod: archive.PodName{Name: "pod", Namespace: "default"}}))
	must(t, w.Bytes(archive.SpecFile, []byte("{}")))
	must(t, w.JSON(archive.ConfigFile, archive.Config{Name: name, CreatedTime: time.Unix(1e9, 0).UTC()}))
	must(t, w.JSON(archive.MountsFile, []archive.BindMount{{Destination: "/data"}, {Destination: "/cache"}}))
	must(t, w.JSON(archive.DeletedFile, []string{"/etc/passwd"}))
	must(t, w.Bytes(archive.RootFSDiffFile, make([]byte, 300)))
	must(t, w.Images())
	must(t, w.Bytes(archive.ImagePath("pages-1.img"), make([]byte, 4096)))
	must(t, w.Bytes(archive.ImagePath("pages-2.img"), bytes.Repeat([]byte("p"), 8192)))
	must(t, w.Bytes(archive.ImagePath("core-1.img"), make([]byte, 100)))
	file, err := w.Close()
	must(t, err)
	return file
}

func TestOpenContainer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tar")
	file := writeArchive(t, path, "web")
	c, err := Open(t.Context(), path, Options{})
	must(t, err)
	got := c.Containers[0]
	if c.Kind != KindContainer || c.Version != archive.Version || c.Pod.Name != "pod" || c.Size != file.Size || c.Authentic != nil || !c.Valid() {
		t.Errorf("got %+v", c)
	}
	if got.Name != "web" || got.ImageID != "sha256:web" || got.SHA256 != file.SHA256 || got.Digest != DigestUnknown || got.DeletedFiles != 1 ||
		got.CreatedAt.Unix() != 1e9 || !slices.Equal(got.BindMounts, []string{"/cache", "/data"}) {
		t.Errorf("got container %+v", got)
	}
	for name, want := range map[string]Part{
		partMemory: {partMemory, 2, 12288}, partImages: {partImages, 1, 100}, partRootFS: {partRootFS, 1, 300},
	} {
		if !slices.Contains(got.Parts, want) {
			t.Errorf("part %s: got %+v, want %+v", name, got.Parts, want)
		}
	}
	if missing := strings.Join(c.NotContained, "\n"); !strings.Contains(missing, "the image r.example/a:1 sha256:web") || !strings.Contains(missing, "/cache, /data") {
		t.Errorf("not contained: got %q", missing)
	}
	for name, tc := range map[string]struct {
		key  archive.Key
		want bool
	}{"same key": {testKey, true}, "other key": {otherKey, false}} {
		c, err := Open(t.Context(), path, Options{Key: tc.key})
		if err != nil || c.Authentic == nil || *c.Authentic != tc.want || c.Valid() != tc.want {
			t.Errorf("%s: got %+v, %v", name, c, err)
		}
	}
}

// writePod writes a pod checkpoint of two containers.
func writePod(t testing.TB) (dir string, m *archive.Manifest) {
	t.Helper()
	dir = t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, archive.ContainersDir), 0o700))
	m = &archive.Manifest{Origin: archive.Origin{Version: archive.Version}, Pod: archive.Pod{PodName: archive.PodName{Name: "pod"}, Network: "pod"}}
	for i, name := range []string{"a", "b"} {
		path := archive.ContainerPath(i, name)
		file := writeArchive(t, filepath.Join(dir, path), name)
		file.Path = path
		m.Containers = append(m.Containers, archive.ManifestContainer{Name: name, ID: "id-" + name, ImageID: "sha256:" + name, File: file})
	}
	writeManifest(t, dir, m)
	return dir, m
}

func writeManifest(t testing.TB, dir string, m *archive.Manifest) {
	t.Helper()
	must(t, m.Sign(testKey))
	b, err := json.Marshal(m)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, archive.ManifestFile), b, 0o600))
}

func TestOpenPod(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(t *testing.T, dir string, m *archive.Manifest)
		digest Digest // of the second container
		says   string // error of the second container
	}{
		"valid": {func(*testing.T, string, *archive.Manifest) {}, DigestVerified, ""},
		"changed byte": {func(t *testing.T, dir string, m *archive.Manifest) {
			path := filepath.Join(dir, m.Containers[1].Path)
			b, err := os.ReadFile(path)
			must(t, err)
			b[bytes.Index(b, []byte("pppp"))] = 'q'
			must(t, os.WriteFile(path, b, 0o600))
		}, DigestDiffers, "digest differs"},
		"missing": {func(t *testing.T, dir string, m *archive.Manifest) {
			must(t, os.Remove(filepath.Join(dir, m.Containers[1].Path)))
		}, DigestUnknown, "no such file"},
		"other size": {func(t *testing.T, dir string, m *archive.Manifest) {
			m.Containers[1].Size++
			writeManifest(t, dir, m)
		}, DigestUnknown, "bytes, the manifest says"},
		"link": {func(t *testing.T, dir string, m *archive.Manifest) {
			path := filepath.Join(dir, m.Containers[1].Path)
			must(t, os.Remove(path))
			must(t, os.Symlink("01-a.tar", path))
		}, DigestUnknown, "02-b.tar"},
		"other container": {func(t *testing.T, dir string, m *archive.Manifest) {
			m.Containers[1].ID = "other"
			writeManifest(t, dir, m)
		}, DigestVerified, "the id in the archive"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, m := writePod(t)
			tc.change(t, dir, m)
			c, err := Open(t.Context(), dir, Options{Key: testKey})
			must(t, err)
			if a := c.Containers[0]; a.Error != "" || a.Digest != DigestVerified {
				t.Errorf("first container: got %+v", a.File)
			}
			b := c.Containers[1]
			if b.Digest != tc.digest || (b.Error == "") != (tc.says == "") || !strings.Contains(b.Error, tc.says) {
				t.Errorf("second container: got %+v, want %s and an error with %q", b.File, tc.digest, tc.says)
			}
			if c.Valid() != (tc.says == "") || !*c.Authentic {
				t.Errorf("valid is %t, authentic is %t", c.Valid(), *c.Authentic)
			}
		})
	}
	dir, _ := writePod(t)
	if c, err := Open(t.Context(), dir, Options{Key: otherKey}); err != nil || *c.Authentic || c.Valid() {
		t.Errorf("other key: got %+v, %v", c, err)
	}
}

// tarOf returns a tar with an entry for each header. The content of an entry is zeros.
func tarOf(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		must(t, w.WriteHeader(h))
		_, err := w.Write(make([]byte, h.Size))
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func TestOpenRefuses(t *testing.T) {
	valid := filepath.Join(t.TempDir(), "valid")
	writeArchive(t, valid, "a")
	content, err := os.ReadFile(valid)
	must(t, err)
	file := func(b []byte) func(string) error { return func(p string) error { return os.WriteFile(p, b, 0o600) } }
	for name, tc := range map[string]struct {
		create func(path string) error
		want   error
	}{
		"missing":     {func(string) error { return nil }, errdefs.ErrNotFound},
		"fifo":        {func(p string) error { return unix.Mkfifo(p, 0o600) }, errdefs.ErrInvalidArgument},
		"empty":       {file(nil), errdefs.ErrInvalidArgument},
		"no tar":      {file(bytes.Repeat([]byte("x"), 4096)), errdefs.ErrInvalidArgument},
		"truncated":   {file(content[:len(content)/2]), errdefs.ErrInvalidArgument},
		"other tar":   {file(tarOf(t, &tar.Header{Name: "README", Size: 3})), errdefs.ErrInvalidArgument},
		"no images":   {file(tarOf(t, &tar.Header{Name: archive.SpecFile, Size: 3})), errdefs.ErrInvalidArgument},
		"path above":  {file(tarOf(t, &tar.Header{Name: "checkpoint/../../etc/passwd", Size: 3})), errdefs.ErrInvalidArgument},
		"link":        {file(tarOf(t, &tar.Header{Name: archive.SpecFile, Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"})), errdefs.ErrInvalidArgument},
		"device":      {file(tarOf(t, &tar.Header{Name: archive.SpecFile, Typeflag: tar.TypeBlock})), errdefs.ErrInvalidArgument},
		"twice":       {file(tarOf(t, &tar.Header{Name: archive.SpecFile}, &tar.Header{Name: archive.SpecFile})), errdefs.ErrInvalidArgument},
		"large JSON":  {file(tarOf(t, &tar.Header{Name: archive.ConfigFile, Size: archive.MaxJSON + 1})), errdefs.ErrInvalidArgument},
		"no JSON":     {file(tarOf(t, &tar.Header{Name: archive.ConfigFile, Size: 8})), errdefs.ErrInvalidArgument},
		"no manifest": {func(p string) error { return os.Mkdir(p, 0o700) }, errdefs.ErrNotFound},
		"wrong manifest": {func(p string) error {
			return errors.Join(os.Mkdir(p, 0o700), os.WriteFile(p+"/manifest.json", []byte("{}"), 0o600))
		}, errdefs.ErrFailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c")
			must(t, tc.create(path))
			if c, err := Open(t.Context(), path, Options{Key: testKey}); !errors.Is(err, tc.want) {
				t.Errorf("got %+v, %v, want %v", c, err, tc.want)
			}
		})
	}
}

func TestOpenEndsWithContext(t *testing.T) {
	dir, _ := writePod(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, dir, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "a")
	writeArchive(f, path, "a")
	b, err := os.ReadFile(path)
	must(f, err)
	f.Add(b)
	f.Add(tarOf(f, &tar.Header{Name: archive.ConfigFile, Size: 8}))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "a")
		must(t, os.WriteFile(path, b, 0o600))
		if c, err := Open(t.Context(), path, Options{}); err == nil && (len(c.Containers) != 1 || c.Size != int64(len(b))) {
			t.Errorf("got %+v", c)
		}
	})
}
