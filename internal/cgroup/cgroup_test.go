package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/patience"
)

func tree(t *testing.T) *Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cgroups need root")
	}
	tr, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// exists returns in how many hierarchies the cgroup exists.
func exists(tr *Tree, p string) int {
	n := 0
	for _, root := range tr.roots {
		if _, err := os.Stat(root + p); err == nil {
			n++
		}
	}
	return n
}

func TestMakeAndRelease(t *testing.T) {
	tr := tree(t)
	base := fmt.Sprintf("/criserver-test-%d", os.Getpid())
	for _, p := range []string{base + "/a", base + "/a", base} {
		if err := tr.Make(p); err != nil {
			t.Fatal(err)
		}
	}
	if n := exists(tr, base+"/a"); n != len(tr.roots) {
		t.Fatalf("the cgroup exists in %d of %d hierarchies", n, len(tr.roots))
	}
	tr.Release(base + "/a")
	if exists(tr, base+"/a") == 0 {
		t.Fatal("the cgroup was removed although it had a user")
	}
	tr.Release(base + "/a")
	if exists(tr, base+"/a") != 0 || exists(tr, base) == 0 {
		t.Fatal("want the child removed and its parent, which has a user, not")
	}
	tr.Release(base)
	if n := exists(tr, base); n != 0 {
		t.Fatalf("%d directories still exist", n)
	}
}

func TestReleaseKeepsForeignCgroup(t *testing.T) {
	tr := tree(t)
	p := fmt.Sprintf("/criserver-test-foreign-%d", os.Getpid())
	for _, root := range tr.roots {
		if err := os.Mkdir(root+p, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(root + p)
	}
	if err := tr.Make(p + "/sub"); err != nil {
		t.Fatal(err)
	}
	tr.Release(p + "/sub")
	if exists(tr, p) != len(tr.roots) {
		t.Error("Release removed a cgroup that Make did not make")
	}
	if exists(tr, p+"/sub") != 0 {
		t.Error("Release did not remove the cgroup that Make made")
	}
}

// TestRemoveUnused checks that a process removes the empty cgroups that an earlier process made, and no others.
func TestRemoveUnused(t *testing.T) {
	earlier, tr := tree(t), tree(t)
	p := fmt.Sprintf("/criserver-test-unused-%d", os.Getpid())
	for _, sub := range []string{p + "/busy/child", p + "/empty"} {
		if err := earlier.MakeWithoutControllers(sub); err != nil {
			t.Fatal(err)
		}
	}
	for _, root := range tr.roots {
		if err := os.Mkdir(root+p+"/foreign", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"/busy", "/empty", "/foreign", "/missing"} {
		if err := tr.RemoveUnused(p + sub); err != nil {
			t.Error(err)
		}
	}
	for sub, want := range map[string]int{"/busy": len(tr.roots), "/empty": 0, "/foreign": len(tr.roots)} {
		if n := exists(tr, p+sub); n != want {
			t.Errorf("%s exists in %d hierarchies, want %d", sub, n, want)
		}
	}
	if err := tr.RemoveUnused("/"); err == nil {
		t.Error("RemoveUnused of the root succeeded")
	}
	if err := earlier.Remove(p); err != nil {
		t.Fatal(err)
	}
}

func TestCheckPath(t *testing.T) {
	for _, p := range []string{"", "/", "a", "/a/../b", "/a//b", "/a\n/b"} {
		if CheckPath(p) == nil {
			t.Errorf("%q: no error", p)
		}
	}
}

func TestSpawnerStartsInCgroup(t *testing.T) {
	tr := tree(t)
	path := fmt.Sprintf("/criserver-test-spawn-%d", os.Getpid())
	sp := NewSpawner(tr, path)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sp.Run(ctx) }()

	cmd := exec.Command("sh", "-c", "read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sp.Start(func() *exec.Cmd { return cmd }); err != nil {
		t.Fatal(err)
	}
	if got, err := tr.ProcessCgroup(cmd.Process.Pid); err != nil || got != path {
		t.Errorf("the process is in %q, %v", got, err)
	}
	if got, err := tr.ProcessCgroup(os.Getpid()); err != nil || got == path {
		t.Errorf("the test process is in %q, %v", got, err)
	}
	in.Close()
	_ = cmd.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := exists(tr, path); n != 0 {
		t.Errorf("%d directories still exist", n)
	}
	if _, err := sp.Start(func() *exec.Cmd { return exec.Command("true") }); err == nil {
		t.Error("a stopped spawner started a process")
	}
}

func TestKillAndStats(t *testing.T) {
	tr := tree(t)
	path := fmt.Sprintf("/criserver-test-kill-%d", os.Getpid())
	if err := tr.Make(path); err != nil {
		t.Fatal(err)
	}
	defer tr.Release(path)
	var enter strings.Builder
	for _, root := range tr.roots {
		fmt.Fprintf(&enter, "echo $$ >%s%s/cgroup.procs; ", root, path)
	}
	cmd := exec.Command("sh", "-c", enter.String()+"sleep 1000 & echo; sleep 1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if s, err := tr.Stats(path); err != nil || s.Memory.Usage == 0 || s.Pids < 2 {
		t.Errorf("stats %+v, %v", s, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience.For(10*time.Second))
	defer cancel()
	reaped := make(chan struct{})
	go func() { _ = cmd.Wait(); close(reaped) }()
	if err := tr.Kill(ctx, path); err != nil {
		t.Fatal(err)
	}
	<-reaped
	if err := tr.Kill(ctx, path+"-missing"); err != nil {
		t.Errorf("kill of a missing cgroup: %v", err)
	}
	if _, err := tr.Stats(path + "-gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stats of a missing cgroup: %v", err)
	}
}

func TestV1Mounts(t *testing.T) {
	const info = `25 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
28 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
29 25 0:26 / /elsewhere/memory rw - cgroup cgroup rw,memory
`
	got := v1Mounts(bufio.NewScanner(strings.NewReader(info)))
	want := map[string]string{
		"unified": "/sys/fs/cgroup/unified", "cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "name=systemd": "/sys/fs/cgroup/systemd",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
