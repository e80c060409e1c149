package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/userns"
)

const firstHostID = 500000

// userNS returns the path of a new user namespace.
func userNS(t *testing.T) string {
	t.Helper()
	needRoot(t)
	list := []userns.Mapping{{HostID: firstHostID, Size: 65536}}
	f, err := userns.Holder{Path: "/bin/sleep", Args: []string{"sleep", "600"}}.Open(userns.Maps{UIDs: list, GIDs: list})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	path := filepath.Join(t.TempDir(), "user")
	write(t, "", path)
	if err := unix.Mount(fmt.Sprint("/proc/self/fd/", f.Fd()), path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
	return path
}

func chown(t *testing.T, id int, path ...string) {
	t.Helper()
	if err := os.Lchown(filepath.Join(path...), id, id); err != nil {
		t.Fatal(err)
	}
}

func ownedBy(t *testing.T, want uint32, path ...string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(path...), &st); err != nil || st.Uid != want || st.Gid != want {
		t.Errorf("%s has owner %d:%d, want %d, %v", filepath.Join(path...), st.Uid, st.Gid, want, err)
	}
}

// TestMountMapped mounts a root file system with mapped ids in both ways, and checks it from the host.
func TestMountMapped(t *testing.T) {
	ns := userNS(t)
	for name, change := range map[string]func(*overlaySupport){
		"by descriptor":        func(s *overlaySupport) {},
		"in a mount namespace": func(s *overlaySupport) { s.lowerByFD = false },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := newStore(t, dir, "boot")
			change(&s.support)
			bottom, top := mkdir(t, dir, "bottom"), mkdir(t, dir, "top")
			write(t, "bottom", bottom, "f")
			write(t, "user's", bottom, "u")
			chown(t, 1000, bottom, "u")
			write(t, "deleted", mkdir(t, bottom, "d"), "x")
			write(t, "top", top, "f")
			if err := os.Symlink("f", filepath.Join(bottom, "link")); err != nil {
				t.Fatal(err)
			}
			target := mkdir(t, dir, "target")
			mounts := mountsBelow(t, dir)
			upper, err := s.Mount(t.Context(), Request{
				ContainerID: ids.New(), Lower: []string{top, bottom}, Target: target, Options: Options{UserNS: ns},
			})
			if err != nil {
				t.Fatal(err)
			}
			unmountAll(t, s)
			if got := mountsBelow(t, dir); got != mounts+1 {
				t.Errorf("got %d new mounts, want one", got-mounts)
			}
			if got := read(t, target, "f"); got != "top" {
				t.Errorf("content of f is %q", got)
			}
			for path, want := range map[string]uint32{"": firstHostID, "f": firstHostID, "u": firstHostID + 1000, "d/x": firstHostID, "link": firstHostID} {
				ownedBy(t, want, target, path)
			}
			// A file that is copied up has the ids of the host.
			write(t, "changed", target, "u")
			ownedBy(t, firstHostID+1000, upper, "u")
			ownedBy(t, 1000, bottom, "u")
			if got := read(t, bottom, "u"); got != "user's" {
				t.Errorf("content in the layer is %q", got)
			}
			if err := os.RemoveAll(filepath.Join(target, "d")); err != nil {
				t.Fatal(err)
			}
			read(t, bottom, "d", "x")
		})
	}
}

func mountsBelow(t *testing.T, dir string) int {
	t.Helper()
	return strings.Count(read(t, "/proc/self/mountinfo"), " "+dir)
}

func TestMountMappedManyLayers(t *testing.T) {
	ns, dir := userNS(t), t.TempDir()
	s := newStore(t, dir, "boot")
	var lower []string
	for range 300 {
		lower = append(lower, mkdir(t, dir, strings.Repeat("l", 64)+ids.New()[:8], "diff"))
	}
	for _, byFD := range []bool{true, false} {
		s.support.lowerByFD = byFD
		target := mkdir(t, dir, "target", ids.New()[:8])
		if _, err := s.Mount(t.Context(), Request{ContainerID: ids.New(), Lower: lower, Target: target, Options: Options{UserNS: ns}}); err != nil {
			t.Errorf("mount by descriptor %v: %v", byFD, err)
		}
	}
	unmountAll(t, s)
}

func TestMountMappedErrors(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	s := newStore(t, dir, "boot")
	target := mkdir(t, dir, "target")
	for _, ns := range []string{filepath.Join(dir, "none"), "/proc/self/ns/net", "/proc/self/ns/user"} {
		_, err := s.Mount(t.Context(), Request{ContainerID: ids.New(), Lower: []string{mkdir(t, dir, "l")}, Target: target, Options: Options{UserNS: ns}})
		if err == nil {
			t.Errorf("mount with %s: got no error", ns)
		}
	}
	if n := len(s.Records()); n != 0 {
		t.Errorf("got %d records, want none", n)
	}
}

func TestTrial(t *testing.T) {
	ns, dir := userNS(t), t.TempDir()
	target := mkdir(t, dir, "target")
	if err := Trial(mkdir(t, dir, "trial"), target, ns); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(target, 0); err != nil {
		t.Error(err)
	}
}
