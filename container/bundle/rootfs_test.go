package bundle

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/oci"
)

func TestWritableVolumes(t *testing.T) {
	real := t.TempDir()
	rootfs := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(real, rootfs); err != nil { // /var/run is often a link, too
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
		"/data":                       "/data",
		"/data/deep /data /srv":       "/srv /data /data/deep",
		"/todata":                     "/data",
		"/ /proc /proc/sys":           "",
		"/dev /sys /tokernel /toroot": "",
		"/mnt/user /touser":           "",
	} {
		got, err := writableVolumes(rootfs, strings.Fields(volumes), mounts)
		if err != nil {
			t.Fatal(err)
		}
		var destinations []string
		for _, m := range got {
			destinations = append(destinations, m.Destination)
			if m.ReadOnly || m.Source != filepath.Join(real, m.Destination) {
				t.Errorf("%s: mount %+v", volumes, m)
			}
		}
		if strings.Join(destinations, " ") != want {
			t.Errorf("%s: got %v, want %s", volumes, destinations, want)
		}
	}
}

func TestPrepareRootFS(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a change of the owner needs root")
	}
	rootfs := t.TempDir()
	mounts := []oci.Mount{{Destination: "/mnt"}}
	if err := prepareRootFS(rootfs, "/work/dir", []string{"/", "/mnt/below", "/vol"}, mounts, Owner{}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, dir := range []string{"work/dir", "vol", "mnt"} {
		if info, err := os.Stat(filepath.Join(rootfs, dir)); err == nil && info.IsDir() {
			got = append(got, dir)
		}
	}
	if !slices.Equal(got, []string{"work/dir", "vol"}) {
		t.Errorf("directories in the root file system: %v", got)
	}
}

func TestMakeContainerDir(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a change of the owner needs root")
	}
	for root, want := range map[Owner]os.FileMode{{}: 0o700, {5000, 6000}: 0o710} {
		dir := t.TempDir() + "/d"
		if err := MakeContainerDir(dir, root); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != want {
			t.Errorf("%v: mode %v, %v", root, info.Mode(), err)
		}
	}
}

func TestRootOwner(t *testing.T) {
	list := []userns.Mapping{{ContainerID: 0, HostID: 5000, Size: 100}}
	if got := RootOwner(userns.Maps{UIDs: list, GIDs: list}); got != (Owner{5000, 5000}) {
		t.Errorf("in a user namespace: %v", got)
	}
	if got := RootOwner(userns.Maps{}); got != (Owner{}) {
		t.Errorf("in the user namespace of the host: %v", got)
	}
}
