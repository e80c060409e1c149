package oci

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestMounts(t *testing.T) {
	in := testInput()
	in.Mounts = []Mount{
		{Source: "/h/b", Destination: "/data/sub/deep"},
		{Source: "/h/a", Destination: "/data", ReadOnly: true, RecursiveReadOnly: true},
		{Source: "/h/hosts", Destination: "/etc/hosts"},
		{Source: "/h/slave", Destination: "/slave", Propagation: cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, Options: []string{"noexec"}},
	}
	s := mustBuild(t, testHost(), in).Spec
	if got := mountAt(s, "/etc/hosts"); got.Source != "/h/hosts" {
		t.Errorf("the pod's hosts file is mounted over the request's: %v", got)
	}
	d := destinations(s)
	if slices.Index(d, "/data") > slices.Index(d, "/data/sub/deep") || len(slices.Compact(slices.Sorted(slices.Values(d)))) != len(d) {
		t.Errorf("order of %v", d)
	}
	if got := mountAt(s, "/data"); !slices.Contains(got.Options, "rro") || s.Version != versionRecursiveMounts {
		t.Errorf("recursive read-only: %v in version %s", got, s.Version)
	}
	if got := mountAt(s, "/slave"); !slices.Contains(got.Options, "rslave") || !slices.Contains(got.Options, "noexec") || s.Linux.RootfsPropagation != "rslave" {
		t.Errorf("propagation: %v, root file system %s", got, s.Linux.RootfsPropagation)
	}
	if got := mountAt(s, "/sys"); !slices.Contains(got.Options, "ro") {
		t.Errorf("sysfs: %v", got)
	}
}

func TestHostSysReplacesCgroup(t *testing.T) {
	in := testInput()
	in.Mounts = []Mount{{Source: "/sys", Destination: "/sys/"}}
	if d := destinations(mustBuild(t, testHost(), in).Spec); slices.Contains(d, "/sys/fs/cgroup") || slices.Contains(d, "/sys") {
		t.Errorf("mounted: %v", d)
	}
}

// What a container has anyway goes on top of volumes that lie above it, but
// never onto the host, and no file into what is read-only.
func TestUsualMountsBelowVolumes(t *testing.T) {
	const usual = "/dev/mqueue /dev/pts /dev/shm"
	files := "/etc/hostname /etc/hosts /etc/resolv.conf"
	for name, tc := range map[string]struct {
		m    Mount
		want string
	}{
		"dev":               {Mount{Destination: "/dev"}, usual},
		"dev read-only":     {Mount{Destination: "/dev", ReadOnly: true}, usual},
		"dev bidirectional": {Mount{Destination: "/dev/", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL}, ""},
		"etc":               {Mount{Destination: "/etc"}, files},
		"etc read-only":     {Mount{Destination: "/etc", ReadOnly: true}, ""},
		"etc ro":            {Mount{Destination: "/etc", Options: []string{"ro"}}, ""},
		"etc bidirectional": {Mount{Destination: "/etc", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL}, ""},
		"a name as prefix":  {Mount{Destination: "/et"}, ""},
	} {
		in := testInput()
		tc.m.Source = "/h"
		in.Mounts = []Mount{tc.m}
		d := destinations(mustBuild(t, testHost(), in).Spec)
		at := slices.Index(d, tc.m.Destination)
		var below []string
		for _, dst := range d[at+1:] {
			if strings.HasPrefix(dst, filepath.Clean(tc.m.Destination)+"/") {
				below = append(below, dst)
			}
		}
		slices.Sort(below)
		if at < 0 || strings.Join(below, " ") != tc.want {
			t.Errorf("%s: %q follow it, want %q; of %v", name, below, tc.want, d)
		}
	}
}

func TestOptionsOfABind(t *testing.T) {
	for _, tc := range []struct {
		m    Mount
		want string
	}{
		{Mount{}, "rbind rprivate rw"},
		{Mount{ReadOnly: true, Options: []string{"ro", "noexec"}}, "rbind rprivate ro noexec"},
		{Mount{Options: []string{"nosuid", "ro", "nosuid"}}, "rbind rprivate ro nosuid"},
		{Mount{ReadOnly: true, RecursiveReadOnly: true, Options: []string{"nodev"}}, "rbind rprivate ro rro nodev"},
	} {
		in := testInput()
		tc.m.Destination = "/d"
		in.Mounts = []Mount{tc.m}
		if got := strings.Join(mountAt(mustBuild(t, testHost(), in).Spec, "/d").Options, " "); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.m, got, tc.want)
		}
	}
}

func TestRestrictions(t *testing.T) {
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
		t.Errorf("%v, %v", got, err)
	}
	if _, err := MountRestrictions(dir + "/none"); err == nil {
		t.Error("of what does not exist")
	}
}
