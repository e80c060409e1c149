package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/oci"
)

func TestWritableVolumes(t *testing.T) {
	real := t.TempDir()
	rootfs := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(real, rootfs); err != nil { // as /var/run often is
		t.Fatal(err)
	}
	for _, d := range []string{"data/deep", "proc/sys", "dev", "sys", "mnt/user", "srv"} {
		if err := os.MkdirAll(filepath.Join(real, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"tokernel": "/proc/sys", "toroot": "../../..", "touser": "/mnt/user", "todata": "/data"} {
		if err := os.Symlink(to, filepath.Join(real, link)); err != nil {
			t.Fatal(err)
		}
	}
	mounts := []oci.Mount{{Destination: "/mnt/user/"}}
	for volumes, want := range map[string]string{
		"/data":                            "/data",
		"/data/deep /data /srv/":           "/srv /data /data/deep",
		"/todata":                          "/data",
		"/ relative /proc /proc/sys":       "",
		"/dev /sys /tokernel /toroot /../": "",
		"/mnt/user /touser":                "",
	} {
		declared := map[string]struct{}{}
		for _, v := range strings.Fields(volumes) {
			declared[v] = struct{}{}
		}
		got, err := writableVolumes(rootfs, declared, mounts)
		if err != nil {
			t.Fatal(err)
		}
		var at []string
		for _, m := range got {
			at = append(at, m.Destination)
			if m.ReadOnly || m.Source != filepath.Join(real, m.Destination) {
				t.Errorf("%s: mount %+v", volumes, m)
			}
		}
		if strings.Join(at, " ") != want {
			t.Errorf("%s: got %v, want %s", volumes, at, want)
		}
	}
}

func TestDeclaredVolumesAreBounded(t *testing.T) {
	many := map[string]struct{}{}
	for i := range maxDeclared + 1 {
		many[fmt.Sprint("/v", i)] = struct{}{}
	}
	if err := prepareRootFS(t.TempDir(), "/", many, nil, owner{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}
