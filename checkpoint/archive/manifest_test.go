package archive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// testManifest returns a valid manifest without a signature.
func testManifest() *Manifest {
	file := func(path string) File { return File{Path: path, Size: 1, SHA256: strings.Repeat("ab", 32)} }
	return &Manifest{
		Origin:     Origin{Version: Version},
		Containers: []ManifestContainer{{Name: "a", File: file("containers/01-a.tar")}, {Name: "b", File: file("containers/02-b.tar")}},
		Parts:      []Part{{Name: PartShm, File: file(PodShmFile)}},
	}
}

// TestManifestRules checks that Check and ParseManifest refuse each invalid field.
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
			if err := m.Check(); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			b, err := json.Marshal(m)
			must(t, err)
			if _, err := ParseManifest(b); !errors.Is(err, tc.want) {
				t.Errorf("parse: got %v, want %v", err, tc.want)
			}
		})
	}
	if _, err := ParseManifest([]byte("{")); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("no JSON: got %v", err)
	}
}

// TestSignedManifest checks that only a manifest of the same key, without changes, is authentic.
func TestSignedManifest(t *testing.T) {
	m := testManifest()
	must(t, m.Sign(testKey))
	b, err := json.MarshalIndent(m, "", "  ")
	must(t, err)
	parsed, err := ParseManifest(b)
	must(t, err)
	must(t, parsed.Verify(testKey))
	if err := parsed.Verify(bytes.Repeat([]byte{2}, keySize)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("manifest of another key: got %v", err)
	}
	parsed.Containers[0].Size++
	if err := parsed.Verify(testKey); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("changed manifest: got %v", err)
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

// FuzzManifest checks that all paths of a manifest that ParseManifest accepts have the form of ContainerPath.
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
