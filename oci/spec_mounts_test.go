package oci

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/oci/basespec"
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
		t.Errorf("mount at /etc/hosts: got %v, want that of the request", got)
	}
	d := destinations(s)
	if slices.Index(d, "/data") > slices.Index(d, "/data/sub/deep") || len(slices.Compact(slices.Sorted(slices.Values(d)))) != len(d) {
		t.Errorf("destinations: got %v, want /data before /data/sub/deep and no duplicates", d)
	}
	if got := mountAt(s, "/data"); !slices.Contains(got.Options, "rro") || s.Version != versionRecursiveMounts {
		t.Errorf("recursive read-only mount: got %v in version %s, want rro in version %s", got, s.Version, versionRecursiveMounts)
	}
	if got := mountAt(s, "/slave"); !slices.Contains(got.Options, "rslave") || !slices.Contains(got.Options, "noexec") || s.Linux.RootfsPropagation != "rslave" {
		t.Errorf("propagation: got %v, root file system %s, want rslave", got, s.Linux.RootfsPropagation)
	}
	if got := mountAt(s, "/sys"); !slices.Contains(got.Options, "ro") {
		t.Errorf("mount of sysfs: got %v, want ro", got)
	}
}

func TestHostSysReplacesCgroup(t *testing.T) {
	in := testInput()
	in.Mounts = []Mount{{Source: "/sys", Destination: "/sys/"}}
	if d := destinations(mustBuild(t, testHost(), in).Spec); slices.Contains(d, "/sys/fs/cgroup") || slices.Contains(d, "/sys") {
		t.Errorf("destinations: got %v, want neither /sys nor /sys/fs/cgroup", d)
	}
}

// TestDefaultMountsBelowVolumes checks that default mounts follow a volume of the request that is
// mounted above them. A volume with bidirectional propagation has no default mounts below it, because
// they would appear on the host. A read-only volume has no files of the pod below it, because the
// runtime cannot create their mount points.
func TestDefaultMountsBelowVolumes(t *testing.T) {
	const devMounts = "/dev/mqueue /dev/pts /dev/shm"
	files := "/etc/hostname /etc/hosts /etc/resolv.conf"
	for name, tc := range map[string]struct {
		m    Mount
		want string
	}{
		"dev":               {Mount{Destination: "/dev"}, devMounts},
		"dev read-only":     {Mount{Destination: "/dev", ReadOnly: true}, devMounts},
		"dev bidirectional": {Mount{Destination: "/dev/", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL}, ""},
		"etc":               {Mount{Destination: "/etc"}, files},
		"etc read-only":     {Mount{Destination: "/etc", ReadOnly: true}, ""},
		"etc ro":            {Mount{Destination: "/etc", Options: []string{"ro"}}, ""},
		"etc bidirectional": {Mount{Destination: "/etc", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL}, ""},
		"prefix of a name":  {Mount{Destination: "/et"}, ""},
	} {
		in := testInput()
		tc.m.Source = "/h"
		in.Mounts = []Mount{tc.m}
		d := destinations(mustBuild(t, testHost(), in).Spec)
		volume := slices.Index(d, tc.m.Destination)
		var below []string
		for _, dst := range d[volume+1:] {
			if strings.HasPrefix(dst, filepath.Clean(tc.m.Destination)+"/") {
				below = append(below, dst)
			}
		}
		slices.Sort(below)
		if volume < 0 || strings.Join(below, " ") != tc.want {
			t.Errorf("%s: default mounts below the volume: got %q, want %q; destinations %v", name, below, tc.want, d)
		}
	}
}

func TestBindMountOptions(t *testing.T) {
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
			t.Errorf("options of %+v: got %q, want %q", tc.m, got, tc.want)
		}
	}
}

// TestLocaltime checks that the file of the time zone is mounted read-only, and that a mount of the request or of the
// base config at the same path takes precedence.
func TestLocaltime(t *testing.T) {
	const path = "/etc/localtime"
	for name, tc := range map[string]struct {
		file   string
		mounts []Mount
		base   *basespec.Base
		want   string // source of the mount
	}{
		"none":    {},
		"file":    {file: "/f/zone", want: "/f/zone"},
		"request": {file: "/f/zone", mounts: []Mount{{Source: "/h", Destination: path}}, want: "/h"},
		"base":    {file: "/f/zone", base: &basespec.Base{Mounts: []specs.Mount{{Destination: path, Type: "bind", Source: "/b"}}}, want: "/b"},
	} {
		in := testInput()
		in.Files.Localtime, in.Mounts, in.Base = tc.file, tc.mounts, tc.base
		var found []specs.Mount
		for _, m := range mustBuild(t, testHost(), in).Spec.Mounts {
			if m.Destination == path {
				found = append(found, m)
			}
		}
		got := ""
		if len(found) > 0 {
			got = found[0].Source
		}
		if got != tc.want || len(found) > 1 {
			t.Errorf("%s: got mounts %v, want one of %q", name, found, tc.want)
		}
		if got == "/f/zone" && !slices.Contains(found[0].Options, "ro") {
			t.Errorf("%s: got options %v, want ro", name, found[0].Options)
		}
	}
}
