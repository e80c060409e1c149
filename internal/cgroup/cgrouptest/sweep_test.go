package cgrouptest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/criserver/criserver/internal/cgroup"
)

func TestSweep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cgroups need root")
	}
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	tree, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	dead := fmt.Sprintf("/criserver-test-sweep-%d-7", ended.Process.Pid)
	alive := fmt.Sprintf("/criserver-test-sweep-%d-7", os.Getpid())
	for _, path := range []string{dead, alive} {
		if err := tree.Make(path + "/pod/c"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tree.Release(path + "/pod/c") })
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	if paths := existingDirs(t, dead); len(paths) > 0 {
		t.Errorf("the cgroup of an exited process still exists: %v", paths)
	}
	if len(existingDirs(t, alive)) == 0 {
		t.Error("the cgroup of a running process was removed")
	}
}

func existingDirs(t *testing.T, path string) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"/sys/fs/cgroup" + path, "/sys/fs/cgroup/*" + path} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}
