package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "pages"), []byte("pages"), 0o600))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	var out bytes.Buffer
	w := NewWriter(t.Context(), &out, time.Unix(1e9, 0))
	must(t, w.JSON(InfoFile, ContainerInfo{Origin: Origin{Version: Version}, Container: Container{Name: "a"}}))
	must(t, w.Bytes(SpecFile, []byte("{}")))
	must(t, w.File(ImagePath("pages-1.img"), root, "pages"))
	if err := w.Bytes(SpecFile, nil); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("second %s: got %v", SpecFile, err)
	}
	if err := w.Bytes("../x", nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("name that leads out of the archive: got %v", err)
	}
	must(t, os.Symlink("pages", filepath.Join(dir, "link")))
	if err := w.File(ImagePath("link.img"), root, "link"); err == nil {
		t.Error("File follows a link")
	}
	file, err := w.Close()
	must(t, err)
	if file.Size != int64(out.Len()) {
		t.Errorf("size is %d, want %d", file.Size, out.Len())
	}
	r := NewReader(bytes.NewReader(out.Bytes()))
	var names []string
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		names = append(names, e.Name)
		content, err := e.Bytes()
		must(t, err)
		if e.Name == InfoFile {
			info, err := ParseInfo(content)
			if err != nil || info.Container.Name != "a" {
				t.Errorf("got %+v, %v", info, err)
			}
		}
		if e.Image() == "pages-1.img" && string(content) != "pages" {
			t.Errorf("image has %q", content)
		}
	}
	if want := "criserver.json spec.dump checkpoint/pages-1.img"; strings.Join(names, " ") != want {
		t.Errorf("got %v, want %s", names, want)
	}

	must(t, os.WriteFile(filepath.Join(dir, "a.tar"), out.Bytes(), 0o600))
	file.Path = "a.tar"
	f, err := file.Open(root)
	must(t, err)
	defer f.Close()
	must(t, file.Verify(t.Context(), f))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := file.Verify(ended, f); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: got %v", err)
	}
	damaged := bytes.Clone(out.Bytes())
	damaged[600] ^= 1
	must(t, os.WriteFile(filepath.Join(dir, "a.tar"), damaged, 0o600))
	if err := file.Verify(t.Context(), f); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("another content: got %v", err)
	}
	must(t, os.Truncate(filepath.Join(dir, "a.tar"), 100))
	if _, err := file.Open(root); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("another size: got %v", err)
	}
}

// TestWriterEndsWithContext checks that a write stops at the deadline.
func TestWriterEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewWriter(ctx, io.Discard, time.Now()).Bytes(SpecFile, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"symlink":         {{Name: "spec.dump", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}},
		"hard link":       {{Name: "spec.dump", Typeflag: tar.TypeLink, Linkname: "x"}},
		"device":          {{Name: "checkpoint/a.img", Typeflag: tar.TypeChar}},
		"fifo":            {{Name: "checkpoint/a.img", Typeflag: tar.TypeFifo}},
		"directory":       {{Name: "checkpoint/sub/", Typeflag: tar.TypeDir}},
		"above":           {{Name: "../spec.dump", Typeflag: tar.TypeReg}},
		"above images":    {{Name: "checkpoint/../../a.img", Typeflag: tar.TypeReg}},
		"absolute":        {{Name: "/spec.dump", Typeflag: tar.TypeReg}},
		"unknown":         {{Name: "other", Typeflag: tar.TypeReg}},
		"nested":          {{Name: "checkpoint/a/b.img", Typeflag: tar.TypeReg}},
		"hidden":          {{Name: "checkpoint/.img", Typeflag: tar.TypeReg}},
		"line break":      {{Name: "checkpoint/a\nb", Typeflag: tar.TypeReg}},
		"long":            {{Name: "checkpoint/" + strings.Repeat("a", MaxName+1), Typeflag: tar.TypeReg}},
		"twice":           {{Name: "spec.dump", Typeflag: tar.TypeReg}, {Name: "./spec.dump", Typeflag: tar.TypeReg}},
		"truncated":       {{Name: "spec.dump", Typeflag: tar.TypeReg, Size: 4096}},
		"too large to be": {{Name: "spec.dump", Typeflag: tar.TypeReg, Size: 1 << 60}},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range entries {
				must(t, w.WriteHeader(&h))
			}
			r := NewReader(&b)
			for {
				e, err := r.Next()
				if errors.Is(err, io.EOF) {
					t.Fatal("the archive is accepted")
				}
				if err == nil {
					_, err = io.Copy(io.Discard, e)
				}
				if errors.Is(err, errdefs.ErrInvalidArgument) || errors.Is(err, io.ErrUnexpectedEOF) {
					return
				}
				must(t, err)
			}
		})
	}
	if _, err := NewReader(strings.NewReader(strings.Repeat("no tar", 1000))).Next(); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("no tar: got %v", err)
	}
}

// TestReaderAcceptsOtherEngines checks an archive with the entries of other programs.
func TestReaderAcceptsOtherEngines(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir},
		{Name: "checkpoint/", Typeflag: tar.TypeDir},
		{Name: "./network.status", Typeflag: tar.TypeReg},
		{Name: "artifacts/", Typeflag: tar.TypeDir},
		{Name: "./config.dump", Typeflag: tar.TypeReg},
	} {
		must(t, w.WriteHeader(&h))
	}
	must(t, w.Close())
	r := NewReader(&b)
	if e, err := r.Next(); err != nil || e.Name != ConfigFile {
		t.Errorf("got %v, %v", e, err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

func testManifest() *Manifest {
	file := func(path string) File { return File{Path: path, Size: 1, SHA256: strings.Repeat("ab", 32)} }
	return &Manifest{
		Origin:     Origin{Version: Version},
		Containers: []ManifestContainer{{Name: "a", File: file("containers/01-a.tar")}, {Name: "b", File: file("containers/02-b.tar")}},
		Parts:      []Part{{Name: PartShm, File: file(PodShmFile)}},
	}
}

func TestManifestRules(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Manifest)
		want   error
	}{
		"valid":           {func(*Manifest) {}, nil},
		"later version":   {func(m *Manifest) { m.Version = 2 }, errdefs.ErrFailedPrecondition},
		"no version":      {func(m *Manifest) { m.Version = 0 }, errdefs.ErrFailedPrecondition},
		"no container":    {func(m *Manifest) { m.Containers = nil }, errdefs.ErrInvalidArgument},
		"no name":         {func(m *Manifest) { m.Containers[0].Name = "" }, errdefs.ErrInvalidArgument},
		"name twice":      {func(m *Manifest) { m.Containers[1].Name = "a"; m.Containers[1].Path = "containers/02-a.tar" }, errdefs.ErrInvalidArgument},
		"name with slash": {func(m *Manifest) { m.Containers[0].Name = "../a" }, errdefs.ErrInvalidArgument},
		"path above":      {func(m *Manifest) { m.Containers[0].Path = "../01-a.tar" }, errdefs.ErrInvalidArgument},
		"absolute path":   {func(m *Manifest) { m.Containers[0].Path = "/etc/passwd" }, errdefs.ErrInvalidArgument},
		"negative size":   {func(m *Manifest) { m.Containers[0].Size = -1 }, errdefs.ErrInvalidArgument},
		"no digest":       {func(m *Manifest) { m.Parts[0].SHA256 = "" }, errdefs.ErrInvalidArgument},
		"short digest":    {func(m *Manifest) { m.Containers[0].SHA256 = "ab" }, errdefs.ErrInvalidArgument},
		"unknown part":    {func(m *Manifest) { m.Parts[0].Name = "ipc" }, errdefs.ErrInvalidArgument},
		"part above":      {func(m *Manifest) { m.Parts[0].Path = "../shm.tar" }, errdefs.ErrInvalidArgument},
		"part twice":      {func(m *Manifest) { m.Parts = append(m.Parts, m.Parts[0]) }, errdefs.ErrInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			m := testManifest()
			tc.change(m)
			b, err := json.Marshal(m)
			must(t, err)
			if _, err := ParseManifest(b); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	if _, err := ParseManifest([]byte("{")); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("no JSON: got %v", err)
	}
}

// TestReadManifestOpensOnlyFiles checks that neither a link nor a FIFO is opened.
func TestReadManifestOpensOnlyFiles(t *testing.T) {
	for name, create := range map[string]func(path string) error{
		"missing":   func(string) error { return nil },
		"link":      func(p string) error { return os.Symlink("/etc/hostname", p) },
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"huge":      func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Truncate(p, MaxJSON+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, create(filepath.Join(dir, ManifestFile)))
			root, err := os.OpenRoot(dir)
			must(t, err)
			defer root.Close()
			if m, err := ReadManifest(root); err == nil {
				t.Errorf("got %v", m)
			}
		})
	}
}

func FuzzReader(f *testing.F) {
	var b bytes.Buffer
	w := NewWriter(context.Background(), &b, time.Unix(0, 0))
	_ = w.Bytes(SpecFile, []byte("{}"))
	_, _ = w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data))
		for {
			e, err := r.Next()
			if err != nil {
				return
			}
			if checkName(e.Name) != nil {
				t.Errorf("name %q", e.Name)
			}
			_, _ = io.Copy(io.Discard, e)
		}
	})
}

func FuzzManifest(f *testing.F) {
	b, _ := json.Marshal(testManifest())
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			return
		}
		for i, c := range m.Containers {
			if c.Path != fmt.Sprintf("containers/%02d-%s.tar", i+1, c.Name) {
				t.Errorf("path %q", c.Path)
			}
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
