package mounttable

import (
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

// TestManyLayers parses a table with a line that is too long for the parser of mountinfo.
func TestManyLayers(t *testing.T) {
	layers := strings.Repeat("lowerdir+=/var/lib/criserver/layers/"+strings.Repeat("f", 64)+"/fs,", 800)
	table := "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n" +
		"22 21 0:50 / /run/c/rootfs rw,relatime - overlay overlay rw," + layers + "upperdir=/up,volatile\n" +
		"23 21 0:51 / /data rw,nosuid shared:7 - tmpfs tmpfs rw,size=5k\n"
	if _, err := mountinfo.GetMountsFromReader(strings.NewReader(table), nil); err == nil {
		t.Error("mountinfo parses the table without help")
	}
	got, err := parse(strings.NewReader(table), nil)
	if err != nil || len(got) != 3 {
		t.Fatalf("got %d mounts and error %v, want 3 mounts", len(got), err)
	}
	if m := got[1]; m.Mountpoint != "/run/c/rootfs" || m.FSType != "overlay" || m.VFSOptions != "rw,upperdir=/up,volatile" {
		t.Errorf("overlay: got %+v", m)
	}
	if m := got[2]; m.Mountpoint != "/data" || m.Optional != "shared:7" || m.VFSOptions != "rw,size=5k" {
		t.Errorf("mount after the overlay: got %+v", m)
	}
	got, err = parse(strings.NewReader(strings.TrimSuffix(table, "\n")), mountinfo.ParentsFilter("/data/x"))
	if err != nil || len(got) != 2 {
		t.Errorf("with a filter, without a line break at the end: got %d mounts and error %v, want 2 mounts", len(got), err)
	}
}

// TestLongOptions parses a long line of a file system that is not an overlay.
func TestLongOptions(t *testing.T) {
	got, err := parse(strings.NewReader("23 21 0:51 / /data rw - fuse src rw,x="+strings.Repeat("y", 1<<20)+"\n"), nil)
	if err != nil || len(got) != 1 || got[0].Mountpoint != "/data" || got[0].FSType != "fuse" {
		t.Errorf("got %d mounts and error %v", len(got), err)
	}
}

func TestReadHost(t *testing.T) {
	if got, err := Read(mountinfo.SingleEntryFilter("/proc")); err != nil || len(got) == 0 {
		t.Errorf("got %v and error %v, want /proc", got, err)
	}
}
