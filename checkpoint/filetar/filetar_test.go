package filetar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/criserver/criserver/image/changes"
	"github.com/criserver/criserver/internal/testns"
	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// list returns the entries of a tar as lines.
func list(t *testing.T, b []byte) []string {
	t.Helper()
	var lines []string
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		line := fmt.Sprintf("%c %s %o", h.Typeflag, h.Name, h.Mode)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if len(content) > 0 {
			line += " " + string(content)
		}
		if x := h.PAXRecords["SCHILY.xattr.user.k"]; x != "" {
			line += " user.k=" + x
		}
		lines = append(lines, line)
	}
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Mkdir(at("d"), 0o750))
	must(t, os.WriteFile(at("d/a"), []byte("aa"), 0o640))
	must(t, unix.Setxattr(at("d/a"), "user.k", []byte("v"), 0))
	must(t, os.Link(at("d/a"), at("d/b")))
	must(t, os.Symlink("/etc/shadow", at("d/link")))
	must(t, unix.Mkfifo(at("d/pipe"), 0o600))
	must(t, unix.Mknod(at("d/sock"), unix.S_IFSOCK|0o600, 0))
	must(t, unix.Chmod(at("d/a"), 0o4755))
	top, err := os.Open(dir)
	must(t, err)
	defer top.Close()
	var out bytes.Buffer
	w := New(t.Context(), top, &out)
	must(t, w.AddTree("d"))
	must(t, w.Add("d/a"))
	if err := w.Add("d/link/x"); err == nil {
		t.Error("Add follows a link")
	}
	if err := w.Add("../x"); err == nil {
		t.Error("Add leaves the tree")
	}
	must(t, w.Close())
	equal(t, list(t, out.Bytes()), "5 d/ 750", "0 d/a 4755 aa user.k=v", "1 d/b 4755 -> d/a", "2 d/link 777 -> /etc/shadow", "6 d/pipe 600")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(ended, top, io.Discard).Add("d/a"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: got %v", err)
	}
}

func TestMain(m *testing.M) { os.Exit(testns.Run(m)) }

// TestChanges applies the changes of an overlay to a copy of its image, and compares the result with the overlay.
func TestChanges(t *testing.T) {
	for _, redirect := range []string{"off", "on"} {
		t.Run(redirect, func(t *testing.T) { testChanges(t, "metacopy=off,index=off,redirect_dir="+redirect) })
	}
}

func testChanges(t *testing.T, options string) {
	if os.Geteuid() != 0 {
		t.Skip("mounts overlay: must be root")
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) {
		must(t, os.MkdirAll(filepath.Dir(at(name)), 0o755))
		must(t, os.WriteFile(at(name), []byte(content), 0o644)) //nolint:gosec // a file of an image
	}
	for _, name := range []string{"upper", "work", "merged", "low1", "low2"} {
		must(t, os.Mkdir(at(name), 0o755))
	}
	write("low1/etc/hosts", "hosts")
	write("low1/etc/gone", "gone")
	write("low1/var/cache/a", "a")
	write("low1/var/cache/sub/x", "x")
	write("low1/var/lib/x/y", "y")
	write("low1/kind/below", "b")
	write("low2/var/cache/b", "b")
	write("low2/var/cache/kept", "kept")
	write("low2/bin/sh", "sh")
	must(t, unix.Mount("overlay", at("merged"), "overlay", 0,
		fmt.Sprintf("lowerdir=%[1]s/low2:%[1]s/low1,upperdir=%[1]s/upper,workdir=%[1]s/work,%[2]s", dir, options)))
	t.Cleanup(func() { must(t, unix.Unmount(at("merged"), 0)) })
	image := snapshot(t, at("merged"))

	write("merged/etc/hosts", "more")
	must(t, os.Remove(at("merged/etc/gone")))
	must(t, os.RemoveAll(at("merged/var/cache")))
	write("merged/var/cache/kept", "again")
	write("merged/var/cache/sub", "now a file")
	must(t, os.RemoveAll(at("merged/kind")))
	write("merged/kind", "now a file")
	must(t, os.Chmod(at("merged/bin/sh"), 0o700))
	must(t, os.Symlink("/etc/shadow", at("merged/link")))
	if err := os.Rename(at("merged/var/lib"), at("merged/var/renamed")); err == nil {
		write("merged/var/renamed/z", "z")
	} else if !errors.Is(err, unix.EXDEV) {
		t.Fatal(err)
	}

	var out bytes.Buffer
	r := RootFS{Layers: changes.Layers{Upper: at("upper"), Lower: []string{at("low2"), at("low1")}}, Merged: at("merged")}
	deleted, err := WriteChanges(t.Context(), r, &out)
	must(t, err)
	for _, path := range deleted {
		for name := range image {
			if name == path || strings.HasPrefix(name, path+"/") {
				delete(image, name)
			}
		}
	}
	for h := range headers(t, out.Bytes()) {
		name := "/" + strings.TrimSuffix(h.Name, "/")
		if h.Typeflag != tar.TypeDir { // a file replaces a directory
			for below := range image {
				if strings.HasPrefix(below, name+"/") {
					delete(image, below)
				}
			}
		}
		image[name] = fmt.Sprintf("%o", h.Mode)
	}
	want := snapshot(t, at("merged"))
	for name, mode := range want {
		if name != "/." && image[name] != mode {
			t.Errorf("%s: got mode %q, want %q", name, image[name], mode)
		}
	}
	for name := range image {
		if _, ok := want[name]; !ok && name != "/." {
			t.Errorf("%s: the container does not have this file", name)
		}
	}
	if slices.ContainsFunc(deleted, func(p string) bool { _, err := os.Lstat(at("merged" + p)); return err == nil }) {
		t.Errorf("%v has files that exist", deleted)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := WriteChanges(ended, r, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: got %v", err)
	}
}

func headers(t *testing.T, b []byte) func(func(*tar.Header) bool) {
	return func(yield func(*tar.Header) bool) {
		for r := tar.NewReader(bytes.NewReader(b)); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) || err == nil && !yield(h) {
				return
			}
			must(t, err)
		}
	}
}

// snapshot returns the modes of all files by absolute path.
func snapshot(t *testing.T, top string) map[string]string {
	files := make(map[string]string)
	must(t, filepath.Walk(top, func(path string, info os.FileInfo, err error) error {
		if err == nil && path != top {
			files[strings.TrimPrefix(path, top)] = fmt.Sprintf("%o", info.Mode().Perm())
		}
		return err
	}))
	return files
}
