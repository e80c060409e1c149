package harness

import (
	"slices"
	"strings"
	"testing"
)

const mountinfo = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /run/x rw shared:2 - tmpfs tmpfs rw
31 22 0:41 / /ns/net rw shared:3 - nsfs nsfs net:[4026531840]
`

func TestSnapshotSince(t *testing.T) {
	before := Snapshot{}
	before.addMountInfo(mountinfo)
	for name, tc := range map[string]struct {
		more string
		want []string
	}{
		"nothing":   {"", nil},
		"elsewhere": {"40 22 0:50 / /run/y rw - tmpfs tmpfs rw\n", []string{"mount /run/y (tmpfs of tmpfs, root /)"}},
		"on top":    {"40 30 0:50 / /run/x rw - tmpfs tmpfs rw\n", []string{"mount /run/x (tmpfs of tmpfs, root /), number 2"}},
		"two on top": {
			"40 30 0:40 / /run/x rw - tmpfs tmpfs rw\n41 40 0:40 / /run/x rw - tmpfs tmpfs rw\n",
			[]string{"mount /run/x (tmpfs of tmpfs, root /), number 2", "mount /run/x (tmpfs of tmpfs, root /), number 3"},
		},
		"part of a file system": {"40 30 0:40 /sub /run/x rw - tmpfs tmpfs rw\n", []string{"mount /run/x (tmpfs of tmpfs, root /sub)"}},
		"other source":          {"40 30 0:50 / /run/x rw - overlay overlay rw\n", []string{"mount /run/x (overlay of overlay, root /)"}},
	} {
		after := Snapshot{}
		after.addMountInfo(mountinfo + tc.more)
		if got := after.Since(before); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
	replaced := Snapshot{}
	replaced.addMountInfo(strings.Replace(mountinfo, "0:40 / /run/x rw shared:2 - tmpfs tmpfs", "0:50 / /run/x rw shared:2 - overlay overlay", 1))
	if got := replaced.Since(before); len(got) != 1 {
		t.Errorf("a replaced mount: got %q, want one description", got)
	}
}

func TestMountPoint(t *testing.T) {
	s := Snapshot{}
	s.addMountInfo(mountinfo)
	var points []string
	for _, line := range s {
		points = append(points, mountPoint(line))
	}
	slices.Sort(points)
	if want := []string{"/", "/ns/net", "/run/x"}; !slices.Equal(points, want) {
		t.Errorf("got %q, want %q", points, want)
	}
}
