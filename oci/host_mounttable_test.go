package oci

import (
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
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
