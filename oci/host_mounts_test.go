package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// An overlay of 500 layers has a line longer than mountinfo's reader takes; it
// must not keep anybody from looking up other mounts.
func TestMountsBesideAnOverlayOfManyLayers(t *testing.T) {
	layers := strings.Repeat("lowerdir+=/var/lib/criserver/layers/"+strings.Repeat("f", 64)+"/fs,", 500)
	table := "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n" +
		"22 21 0:50 / /run/c/rootfs rw,relatime - overlay overlay rw," + layers + "volatile\n" +
		"23 21 0:51 / /data rw,nosuid shared:7 - tmpfs tmpfs rw,size=5k\n"
	got, err := readMounts(strings.NewReader(table), nil)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d mounts, %v", len(got), err)
	}
	if m := got[1]; m.Mountpoint != "/run/c/rootfs" || m.FSType != "overlay" {
		t.Errorf("the overlay: %+v", m)
	}
	if m := got[2]; m.Mountpoint != "/data" || m.Optional != "shared:7" || m.VFSOptions != "rw,size=5k" {
		t.Errorf("the one after it: %+v", m)
	}
	got, err = readMounts(strings.NewReader(strings.TrimSuffix(table, "\n")), mountinfo.ParentsFilter("/data/x"))
	if err != nil || len(got) != 2 {
		t.Errorf("with a filter, and no line break at the end: %d mounts, %v", len(got), err)
	}
	if got, err := hostMounts(mountinfo.SingleEntryFilter("/proc")); err != nil || len(got) == 0 {
		t.Errorf("of this machine: %v, %v", got, err)
	}
}

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
