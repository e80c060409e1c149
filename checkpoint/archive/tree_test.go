package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// unpacked returns a directory with the files of an archive.
func unpacked(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(t.Context(), &out, time.Unix(1e9, 0), testKey)
	must(t, w.JSON(InfoFile, &ContainerInfo{Origin: Origin{Version: Version}, Container: Container{Name: "a"}}))
	must(t, w.Images())
	must(t, w.Bytes(ImagePath("pages-1.img"), []byte("pages")))
	must(t, w.Bytes(ImagePath("empty.img"), nil))
	_, err := w.Close()
	must(t, err)
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, ImageDir), 0o700))
	for r := NewReader(&out); ; {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		must(t, err)
		content, err := io.ReadAll(e)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, e.Name), content, 0o600))
	}
}

// TestTree checks the entries of a directory with the files of an archive.
func TestTree(t *testing.T) {
	dir := unpacked(t)
	must(t, os.WriteFile(filepath.Join(dir, ImageDir, "more.img"), []byte("x"), 0o600))
	tree, err := OpenTree(t.Context(), dir, testKey)
	must(t, err)
	defer tree.Close()
	info, err := tree.Info()
	if err != nil || info.Container.Name != "a" {
		t.Fatalf("got %+v, %v", info, err)
	}
	var names []string
	size := int64(0)
	for {
		e, err := tree.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		names, size = append(names, e.Name), size+e.Size
		if len(names) == 1 {
			continue // the caller need not read an entry
		}
		if content, err := io.ReadAll(e); err != nil || int64(len(content)) != e.Size {
			t.Errorf("%s: got %q, %v", e.Name, content, err)
		}
	}
	if got := strings.Join(names, " "); got != "criserver.json checkpoint/pages-1.img checkpoint/empty.img" || size != tree.Size() {
		t.Errorf("got %q with %d bytes, want %d bytes", got, size, tree.Size())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenTree(ended, dir, testKey); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: got %v", err)
	}
	if _, err := OpenTree(t.Context(), filepath.Join(dir, InfoFile), testKey); err == nil {
		t.Error("a file is accepted as a directory")
	}
}

// TestTreeDetectsChanges checks that a change of a file that the caller does not read is found by the next call.
func TestTreeDetectsChanges(t *testing.T) {
	dir := unpacked(t)
	must(t, os.WriteFile(filepath.Join(dir, ImageDir, "pages-1.img"), []byte("PAGES"), 0o600))
	tree, err := OpenTree(t.Context(), dir, testKey)
	must(t, err)
	defer tree.Close()
	for range 2 {
		_, err = tree.Next()
		must(t, err)
	}
	if _, err := tree.Next(); !errdefs.IsDataLoss(err) {
		t.Errorf("got %v, want ErrDataLoss", err)
	}
}

// TestFileListRules checks that signed lists that break a rule are refused, and lists of another key.
func TestFileListRules(t *testing.T) {
	valid := func() *FileList {
		digest := strings.Repeat("ab", 32)
		return &FileList{Version: Version, Files: []File{{InfoFile, 1, digest}, {ImagePath("pages-1.img"), 2, digest}}}
	}
	for name, tc := range map[string]struct {
		alter func(*FileList)
		is    func(error) bool
	}{
		"valid":         {func(*FileList) {}, func(err error) bool { return err == nil }},
		"version":       {func(l *FileList) { l.Version = 2 }, errdefs.IsFailedPrecondition},
		"empty":         {func(l *FileList) { l.Files = nil }, errdefs.IsInvalidArgument},
		"no info":       {func(l *FileList) { l.Files = l.Files[1:] }, errdefs.IsInvalidArgument},
		"many":          {func(l *FileList) { l.Files = make([]File, MaxEntries+1) }, errdefs.IsInvalidArgument},
		"twice":         {func(l *FileList) { l.Files = append(l.Files, l.Files[1]) }, errdefs.IsInvalidArgument},
		"signature":     {func(l *FileList) { l.Files[1].Path = MACFile }, errdefs.IsInvalidArgument},
		"the list":      {func(l *FileList) { l.Files[1].Path = FilesFile }, errdefs.IsInvalidArgument},
		"absolute":      {func(l *FileList) { l.Files[1].Path = "/etc/shadow" }, errdefs.IsInvalidArgument},
		"parent":        {func(l *FileList) { l.Files[1].Path = "checkpoint/../../x" }, errdefs.IsInvalidArgument},
		"subdirectory":  {func(l *FileList) { l.Files[1].Path = "checkpoint/a/b" }, errdefs.IsInvalidArgument},
		"negative size": {func(l *FileList) { l.Files[1].Size = -1 }, errdefs.IsInvalidArgument},
		"huge":          {func(l *FileList) { l.Files[1].Size = maxSize + 1 }, errdefs.IsInvalidArgument},
		"no digest":     {func(l *FileList) { l.Files[1].SHA256 = "ab" }, errdefs.IsInvalidArgument},
	} {
		l := valid()
		tc.alter(l)
		must(t, l.sign(testKey))
		b, err := json.Marshal(l)
		must(t, err)
		if _, err := parseFileList(b, testKey); !tc.is(err) {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := parseFileList(b, bytes.Repeat([]byte{2}, keySize)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s: another key: got %v, want ErrFailedPrecondition", name, err)
		}
	}
}
