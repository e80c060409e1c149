package host

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestCheckPropagation(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	const private, slave, shared = cri.MountPropagation_PROPAGATION_PRIVATE, cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, cri.MountPropagation_PROPAGATION_BIDIRECTIONAL
	for _, tc := range []struct {
		flag uintptr
		ok   map[cri.MountPropagation]bool
	}{
		{unix.MS_PRIVATE, map[cri.MountPropagation]bool{private: true}},
		{unix.MS_SHARED, map[cri.MountPropagation]bool{private: true, slave: true, shared: true}},
	} {
		if err := unix.Mount("", dir, "", tc.flag, ""); err != nil {
			t.Fatal(err)
		}
		for _, p := range []cri.MountPropagation{private, slave, shared} {
			if err := CheckPropagation(sub, p); (err == nil) != tc.ok[p] {
				t.Errorf("flag %#x, %s: %v", tc.flag, p, err)
			}
		}
	}
}

func TestMountRestrictions(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	got, err := MountRestrictions(dir)
	if err != nil || !slices.Equal(got, []string{"ro", "nosuid", "noexec"}) {
		t.Errorf("restrictions: got %v (error %v), want ro, nosuid and noexec", got, err)
	}
	if _, err := MountRestrictions(dir + "/none"); err == nil {
		t.Error("MountRestrictions of a missing path succeeded, want an error")
	}
}
