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
		t.Skip("making cgroups needs root")
	}
	tr, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func exists(tr *Tree, p string) int {
	n := 0
	for _, root := range tr.roots {
		if _, err := os.Stat(root + p); err == nil {
			n++
		}
	}
	return n
}

func TestMakeAndReleaseLeaveNothing(t *testing.T) {
	tr := tree(t)
	base := fmt.Sprintf("/criserver-test-%d", os.Getpid())
	for _, p := range []string{base + "/a", base + "/a", base} {
		if err := tr.Make(p); err != nil {
			t.Fatal(err)
		}
	}
	if n := exists(tr, base+"/a"); n != len(tr.roots) {
		t.Fatalf("made in %d of %d hierarchies", n, len(tr.roots))
	}
	tr.Release(base + "/a")
	if exists(tr, base+"/a") == 0 {
		t.Fatal("removed while it had a user")
	}
	tr.Release(base + "/a")
	if exists(tr, base+"/a") != 0 || exists(tr, base) == 0 {
		t.Fatal("the child should be gone and its parent, still held, not")
	}
	tr.Release(base)
	if n := exists(tr, base); n != 0 {
		t.Fatalf("%d directories are left", n)
	}
}

func TestForeignCgroupIsKept(t *testing.T) {
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
		t.Error("a cgroup that somebody else made was removed")
	}
	if exists(tr, p+"/sub") != 0 {
		t.Error("the own one is left")
	}
}

func TestBadPaths(t *testing.T) {
	for _, p := range []string{"", "/", "a", "/a/../b", "/a//b", "/a\n/b"} {
		if Valid(p) == nil {
			t.Errorf("%q is taken for valid", p)
		}
	}
}

func TestSpawnStartsInTheCgroup(t *testing.T) {
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
	if err := sp.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if own, err := tr.Of(cmd.Process.Pid); err != nil || own != path {
		t.Errorf("the process is in %q, %v", own, err)
	}
	if own, err := tr.Of(os.Getpid()); err != nil || own == path {
		t.Errorf("this process itself is in %q, %v", own, err)
	}
	in.Close()
	_ = cmd.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := exists(tr, path); n != 0 {
		t.Errorf("%d directories are left", n)
	}
	if err := sp.Start(exec.Command("true")); err == nil {
		t.Error("an ended spawner started a process")
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
	if err := tr.Kill(ctx, path+"-gone"); err != nil {
		t.Errorf("killing what is gone: %v", err)
	}
	if _, err := tr.Stats(path + "-gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stats of what is gone: %v", err)
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
