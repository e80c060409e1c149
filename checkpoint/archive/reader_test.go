package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

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
	if e, err := r.Next(); err != nil || e.Name != FilesFile {
		t.Errorf("after the images: got %+v, %v, want %s", e, err, FilesFile)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: got %v", err)
	}
}

// TestReaderRefuses checks that a Reader refuses entries that the format does not allow.
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

// FuzzReader checks that a Reader returns only names that the format allows.
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
