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

var testKey = Key(bytes.Repeat([]byte{1}, keySize))

// TestKey checks that only archives and manifests of the same key, without changes, are accepted.
func TestKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if _, err := ReadKey(path); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("missing key: got %v", err)
	}
	key, err := MakeKey(path)
	must(t, err)
	if again, err := MakeKey(path); err != nil || !bytes.Equal(again, key) || bytes.Equal(key, make(Key, keySize)) {
		t.Errorf("got the keys %x and %x, %v", key, again, err)
	}
	must(t, os.WriteFile(path, key[1:], 0o600))
	if _, err := MakeKey(path); err == nil {
		t.Error("a short key is accepted")
	}
	var out bytes.Buffer
	w := NewWriter(t.Context(), &out, time.Unix(1e9, 0), key)
	must(t, w.Bytes(SpecFile, []byte("{}")))
	_, err = w.Close()
	must(t, err)
	read := func(b []byte, key Key) error {
		for r := NewAuthenticReader(bytes.NewReader(b), key); ; {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, e)
		}
	}
	must(t, read(out.Bytes(), key))
	if err := read(out.Bytes(), testKey); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another key: got %v", err)
	}
	changed := bytes.Clone(out.Bytes())
	changed[512] = '['
	if err := read(changed, key); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("changed content: got %v", err)
	}
	var unsigned bytes.Buffer
	tw := tar.NewWriter(&unsigned)
	must(t, tw.WriteHeader(&tar.Header{Name: SpecFile, Typeflag: tar.TypeReg}))
	must(t, tw.Close())
	if err := read(unsigned.Bytes(), key); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("no code: got %v", err)
	}
	must(t, read(append(bytes.Clone(out.Bytes()), "rest"...), key)) // a tar ends before the rest
	var more bytes.Buffer
	more.Write(out.Bytes()[:out.Len()-1024])
	tw = tar.NewWriter(&more)
	must(t, tw.WriteHeader(&tar.Header{Name: ConfigFile, Typeflag: tar.TypeReg}))
	must(t, tw.Close())
	if err := read(more.Bytes(), key); !errdefs.IsInvalidArgument(err) {
		t.Errorf("entry after the code: got %v", err)
	}

	m := testManifest()
	must(t, m.Sign(key))
	b, err := json.MarshalIndent(m, "", "  ")
	must(t, err)
	parsed, err := ParseManifest(b)
	must(t, err)
	must(t, parsed.Verify(key))
	if err := parsed.Verify(testKey); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("manifest of another key: got %v", err)
	}
	parsed.Containers[0].Size++
	if err := parsed.Verify(key); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("changed manifest: got %v", err)
	}
}

// TestReadWritten checks that a Reader returns the entries that a Writer has written.
func TestReadWritten(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(t.Context(), &out, time.Unix(1e9, 0), testKey)
	must(t, w.JSON(InfoFile, &ContainerInfo{Origin: Origin{Version: Version}, Container: Container{Name: "a"}}))
	must(t, w.Images())
	must(t, w.Bytes(ImagePath("pages-1.img"), []byte("pages")))
	_, err := w.Close()
	must(t, err)
	r := NewReader(&out)
	e, err := r.Next()
	must(t, err)
	content, err := e.Bytes()
	must(t, err)
	if info, err := ParseInfo(content); err != nil || info.Container.Name != "a" || e.Name != InfoFile || e.Image() != "" {
		t.Errorf("%s: got %+v, %v", e.Name, info, err)
	}
	e, err = r.Next()
	must(t, err)
	if content, err := io.ReadAll(e); err != nil || string(content) != "pages" || e.Image() != "pages-1.img" {
		t.Errorf("%s: got %q, %v", e.Name, content, err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: got %v", err)
	}
}

// TestOpen checks that a file with another size, a link and a missing file are refused.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "a.tar"), []byte("12345"), 0o600))
	must(t, os.Symlink("a.tar", filepath.Join(dir, "link")))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	f, err := File{Path: "a.tar", Size: 5}.Open(root)
	must(t, err)
	must(t, f.Close())
	if _, err := (File{Path: "a.tar", Size: 6}).Open(root); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("another size: got %v", err)
	}
	if _, err := (File{Path: "link", Size: 5}).Open(root); err == nil {
		t.Error("Open follows a link")
	}
	if _, err := (File{Path: "b.tar", Size: 5}).Open(root); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("missing file: got %v", err)
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
		"long":            {{Name: "checkpoint/" + strings.Repeat("a", maxName+1), Typeflag: tar.TypeReg}},
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
	w := NewWriter(context.Background(), &b, time.Unix(0, 0), testKey)
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
