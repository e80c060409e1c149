package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unifiedTree returns the v2 hierarchy of the host, also on a hybrid host.
func unifiedTree(t *testing.T) *Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cgroups need root")
	}
	for _, dir := range []string{mountRoot, filepath.Join(mountRoot, hybridKey)} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return newTree(true, map[string]string{"": dir})
		}
	}
	t.Skip("this machine does not mount cgroup v2")
	return nil
}

func TestUnitOf(t *testing.T) {
	for p, want := range map[string]string{
		"/system.slice/criserver.service":                             "/system.slice/criserver.service",
		"/system.slice/criserver.service/main":                        "/system.slice/criserver.service",
		"/system.slice/criserver.service/a/b":                         "/system.slice/criserver.service",
		"/user.slice/user-0.slice/session-1.scope":                    "/user.slice/user-0.slice/session-1.scope",
		"/user.slice/user-1.slice/user@1.service/app.slice/c.service": "/user.slice/user-1.slice/user@1.service/app.slice/c.service",
		"/":             "",
		"":              "",
		"/system.slice": "",
		"/docker/abc":   "",
	} {
		if got := UnitOf(p); got != want {
			t.Errorf("UnitOf(%q) is %q, want %q", p, got, want)
		}
	}
}

// TestMakeWithoutControllers checks that the subtree_control of the cgroup of a service stays
// empty, so that systemd can start the service in the cgroup again.
func TestMakeWithoutControllers(t *testing.T) {
	tr := unifiedTree(t)
	unit := fmt.Sprintf("/criserver-test-bare-%d.service", os.Getpid())
	if err := os.Mkdir(tr.Dir("", unit), 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(tr.Dir("", unit))
	if err := tr.MakeWithoutControllers(unit + "/monitors"); err != nil {
		t.Fatal(err)
	}
	defer tr.Release(unit + "/monitors")
	if got := readText(filepath.Join(tr.Dir("", unit), "cgroup.subtree_control")); got != "" {
		t.Errorf("enabled controllers: %q", got)
	}
	// A process can enter the unit's cgroup beside the monitors' cgroup.
	cmd := exec.Command("sh", "-c", "echo $$ >"+tr.Dir("", unit)+"/cgroup.procs")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("enter the unit's cgroup: %v: %s", err, out)
	}
}

// TestSpawnerMakesRemovedCgroupAgain removes the cgroup before each start, and once more while the process is started.
func TestSpawnerMakesRemovedCgroupAgain(t *testing.T) {
	tr := unifiedTree(t)
	path := fmt.Sprintf("/criserver-test-respawn-%d/monitors", os.Getpid())
	sp := NewSpawner(tr, path)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sp.Run(ctx) }()
	remove := func() {
		for _, dir := range []string{tr.Dir("", path), filepath.Dir(tr.Dir("", path))} {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		}
	}
	for i := range 3 {
		var out strings.Builder
		attempts := 0
		cmd, err := sp.Start(func() *exec.Cmd {
			if attempts++; attempts <= i {
				remove()
			}
			cmd := exec.Command("cat", "/proc/self/cgroup")
			cmd.Stdout = &out
			return cmd
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), "0::"+path+"\n") {
			t.Errorf("the process was in %q", out.String())
		}
		remove()
	}
	if _, err := sp.Start(func() *exec.Cmd { return exec.Command("/missing") }); !errors.Is(err, unix.ENOENT) {
		t.Errorf("start of a missing program: got %v, want ENOENT", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := exists(tr, filepath.Dir(path)); n != 0 {
		t.Errorf("%d directories still exist", n)
	}
}
