package rootfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/trash"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/patience"
)

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("mounts overlay: must be root")
	}
}

func mkdir(tb testing.TB, path ...string) string {
	tb.Helper()
	dir := filepath.Join(path...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	return dir
}

func write(tb testing.TB, content string, path ...string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(path...), []byte(content), 0o644); err != nil {
		tb.Fatal(err)
	}
}

func read(tb testing.TB, path ...string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// newStore returns a restored store below dir.
func newStore(tb testing.TB, dir, bootID string) *Store {
	tb.Helper()
	needRoot(tb)
	s := NewStore(Config{
		Dir: mkdir(tb, dir, "rootfs"), Stage: mkdir(tb, dir, "tmp"), Bin: trash.New(mkdir(tb, dir, "trash")),
		BootID: bootID, Interval: 10 * time.Millisecond,
	})
	if err := s.Restore(func(err error) { tb.Log(err) }); err != nil {
		tb.Fatal(err)
	}
	return s
}

func unmountAll(tb testing.TB, s *Store) {
	tb.Cleanup(func() {
		for _, r := range s.Records() {
			if err := s.Unmount(context.Background(), r.ContainerID); err != nil {
				tb.Error(err)
			}
		}
	})
}

// TestMountManyLayers mounts the maximum number of layers with both mount APIs. The names of their
// directories are too long for the options of mount(2).
func TestMountManyLayers(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	var lower []string
	for i := range 500 {
		l := mkdir(t, dir, strings.Repeat("l", 128)+fmt.Sprint(i), "diff")
		write(t, fmt.Sprint(i), l, fmt.Sprint("f", i))
		write(t, fmt.Sprint(i), l, "top")
		lower = append(lower, l)
	}
	probed, err := probe(mkdir(t, dir, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("overlay support: %+v", probed)
	for _, byOne := range []bool{true, false} {
		if byOne && !probed.lowerByOne {
			continue
		}
		s := probed
		s.lowerByOne = byOne
		base := fmt.Sprint("lower-by-one-", byOne)
		o := overlay{lower: lower, upper: mkdir(t, dir, base, "upper"), work: mkdir(t, dir, base, "work")}
		target := mkdir(t, dir, base, "target")
		if err := s.mount(o, target); err != nil {
			t.Fatalf("%s: %v", base, err)
		}
		if got := read(t, target, "top"); got != "0" {
			t.Errorf("%s: topmost layer is %s", base, got)
		}
		if got := read(t, target, "f499"); got != "499" {
			t.Errorf("%s: lowest layer is %s", base, got)
		}
		// The line of the mount is longer than 64 KiB.
		if got, err := findMounts(filepath.Dir(o.upper), base); err != nil || !slices.Equal(got, []string{target}) {
			t.Errorf("%s: found mounts %v and error %v", base, got, err)
		}
		write(t, "w", target, "written")
		if err := unix.Unmount(target, 0); err != nil {
			t.Fatal(err)
		}
		if got := read(t, o.upper, "written"); got != "w" {
			t.Errorf("%s: content of upper directory is %q", base, got)
		}
		o.upper, o.work = "", ""
		if err := s.mount(o, target); err != nil {
			t.Fatalf("%s, read-only: %v", base, err)
		}
		if err := os.WriteFile(filepath.Join(target, "w"), nil, 0o600); err == nil {
			t.Errorf("%s: read-only mount is writable", base)
		}
		if err := unix.Unmount(target, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func request(tb testing.TB) Request {
	lower := mkdir(tb, tb.TempDir(), "lower")
	write(tb, "lower", lower, "f")
	if err := os.Chown(lower, 3, 4); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(lower, 0o711); err != nil {
		tb.Fatal(err)
	}
	return Request{ContainerID: ids.New(), ImageID: "sha256:x", Lower: []string{lower}, Target: mkdir(tb, tb.TempDir(), "t")}
}

func TestMountAfterRestart(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir, "boot")
	req := request(t)
	if _, err := s.Mount(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(req.Target)
	if st := info.Sys(); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("root directory has mode %v, %v", info.Mode(), st)
	}
	again := newStore(t, dir, "boot")
	if r := again.Records(); len(r) != 1 || r[0].ContainerID != req.ContainerID || r[0].ImageID != req.ImageID {
		t.Errorf("got records %+v", r)
	}
	write(t, "old", req.Target, "f")
	// Another mount for the same container starts with an empty writable layer.
	if _, err := again.Mount(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if got := read(t, req.Target, "f"); got != "lower" {
		t.Errorf("got %q from the earlier mount", got)
	}
	for range 2 { // the second call has nothing to do
		if err := again.Unmount(t.Context(), req.ContainerID); err != nil {
			t.Fatal(err)
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "rootfs")); len(entries) > 0 {
		t.Errorf("leftovers: %v", entries)
	}
}

func TestUnmountBusyRootFS(t *testing.T) {
	s := newStore(t, t.TempDir(), "boot")
	unmountAll(t, s)
	req := request(t)
	if _, err := s.Mount(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(req.Target, "f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(t.Context(), req.ContainerID); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v", err)
	}
	if got := read(t, req.Target, "f"); got != "lower" || len(s.Records()) != 1 {
		t.Errorf("after failed unmount: got content %q, records %+v", got, s.Records())
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(t.Context(), req.ContainerID); err != nil {
		t.Error(err)
	}
}

func TestRestoreAndSweep(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir, "boot")
	unmountAll(t, s)
	live, dead, broken := request(t), request(t), ids.New()
	for _, r := range []Request{live, dead} {
		if _, err := s.Mount(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	mkdir(t, dir, "rootfs", ids.New(), "upper") // killed before the record was written
	write(t, "{", mkdir(t, dir, "rootfs", broken), recordFile)

	again := newStore(t, dir, "boot")
	if n := len(again.Records()); n != 3 {
		t.Errorf("got %d records, want 3 including the broken one", n)
	}
	if err := again.Sweep(t.Context(), func(id string) bool { return id == live.ContainerID }); err != nil {
		t.Fatal(err)
	}
	if r := again.Records(); len(r) != 1 || r[0].ContainerID != live.ContainerID {
		t.Errorf("got records %+v", r)
	}
	if err := unix.Unmount(live.Target, 0); err != nil { // like a reboot
		t.Fatal(err)
	}
	if r := newStore(t, dir, "another boot").Records(); len(r) > 0 {
		t.Errorf("got records of an earlier boot: %+v", r)
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "rootfs")); len(entries) > 0 {
		t.Errorf("leftovers: %v", entries)
	}
}

func TestFailedMountRollback(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir, "boot")
	for _, change := range []func(*Request){
		func(r *Request) { r.Lower = append(r.Lower, "/none") },
		func(r *Request) { r.Target = "/none" },
		func(r *Request) { r.ContainerID = "../x" },
		func(r *Request) { r.Lower = nil },
	} {
		req := request(t)
		change(&req)
		if _, err := s.Mount(t.Context(), req); err == nil {
			t.Errorf("mount %+v: got no error", req)
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "rootfs")); len(entries) > 0 || len(s.Records()) > 0 {
		t.Errorf("leftovers: %v, records %+v", entries, s.Records())
	}
}

func TestUsage(t *testing.T) {
	s := newStore(t, t.TempDir(), "boot")
	unmountAll(t, s)
	req := request(t)
	if _, err := s.Mount(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	write(t, strings.Repeat("x", 1<<20), req.Target, "big")
	if err := os.Link(filepath.Join(req.Target, "big"), filepath.Join(req.Target, "again")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(req.Target, "out")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { s.Run(ctx); close(stopped) }()
	defer func() { cancel(); <-stopped }()
	for end := patience.Until(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		u, err := s.Usage(req.ContainerID)
		if err != nil {
			t.Fatal(err)
		}
		if u.Bytes >= 1<<20 {
			if u.Bytes > 1<<20+1<<16 || u.Inodes != 3 {
				t.Errorf("got usage %+v, want 1 MiB and 3 inodes", u)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("usage was not measured within 10 s")
		}
	}
	if _, err := s.Usage(ids.New()); !errdefs.IsNotFound(err) {
		t.Errorf("usage of unknown container: got %v", err)
	}
}
