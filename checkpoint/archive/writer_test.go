package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// TestWriter checks the entries, the size and the digest of an archive.
func TestWriter(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "pages"), []byte("pages"), 0o600))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	var out bytes.Buffer
	w := NewWriter(t.Context(), &out, time.Unix(1e9, 0), testKey)
	must(t, w.JSON(InfoFile, ContainerInfo{Origin: Origin{Version: Version}, Container: Container{Name: "a"}}))
	must(t, w.Bytes(SpecFile, []byte("{}")))
	must(t, w.File(ImagePath("pages-1.img"), root, "pages"))
	if err := w.Bytes(SpecFile, nil); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("second %s: got %v", SpecFile, err)
	}
	if err := w.Bytes("../x", nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("name that leads out of the archive: got %v", err)
	}
	file, err := w.Close()
	must(t, err)
	if file.Size != int64(out.Len()) {
		t.Errorf("size is %d, want %d", file.Size, out.Len())
	}
	if sum := sha256.Sum256(out.Bytes()); file.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("digest is %s, want %x", file.SHA256, sum)
	}
	got := make(map[string]string)
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		got[h.Name] = string(content)
		if h.Mode != 0o600 || h.ModTime.Unix() != 1e9 {
			t.Errorf("%s has mode %o and time %s", h.Name, h.Mode, h.ModTime)
		}
	}
	var info ContainerInfo
	if err := json.Unmarshal([]byte(got[InfoFile]), &info); err != nil || info.Container.Name != "a" || info.Version != Version {
		t.Errorf("%s: got %+v, %v", InfoFile, info, err)
	}
	if len(got) != 5 || len(got[MACFile]) != macSize || got[SpecFile] != "{}" || got["checkpoint/pages-1.img"] != "pages" {
		t.Errorf("got %q", got)
	}
}

// TestWriterEndsWithContext checks that a write stops at the deadline.
func TestWriterEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewWriter(ctx, io.Discard, time.Now(), testKey).Bytes(SpecFile, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestFileRefuses checks that File adds only regular files.
func TestFileRefuses(t *testing.T) {
	for name, create := range map[string]func(path string) error{
		"missing":   func(string) error { return nil },
		"link":      func(p string) error { return os.Symlink("/etc/hostname", p) },
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, create(filepath.Join(dir, "f")))
			root, err := os.OpenRoot(dir)
			must(t, err)
			defer root.Close()
			if err := NewWriter(t.Context(), io.Discard, time.Now(), testKey).File(SpecFile, root, "f"); err == nil {
				t.Error("File adds the file")
			}
		})
	}
}
