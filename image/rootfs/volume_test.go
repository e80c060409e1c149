package rootfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/ids"
)

// volumeBed is a Volumes with an image of two layers.
type volumeBed struct {
	*Volumes
	dir   string
	store *Store
	lower []string
}

func newVolumes(t *testing.T) *volumeBed {
	t.Helper()
	dir := t.TempDir()
	b := &volumeBed{dir: filepath.Join(dir, "volumes"), store: newStore(t, dir, "boot")}
	top, bottom := mkdir(t, dir, "top"), mkdir(t, dir, "bottom")
	b.lower = []string{top, bottom}
	write(t, "top", mkdir(t, top, "data"), "file")
	write(t, "bottom", mkdir(t, bottom, "data", "sub"), "deep")
	write(t, "deleted", bottom, "deleted")
	if err := unix.Mknod(filepath.Join(top, "deleted"), unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"inside": "/data/sub", "climbs": "../../../../data/sub", "out": "/../../etc/hostname", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(bottom, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(bottom, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.restart(t)
	t.Cleanup(func() {
		for _, r := range b.Records() {
			if err := b.Unmount(context.Background(), r.ContainerID); err != nil {
				t.Error(err)
			}
		}
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(b.dir))
		entries, _ := os.ReadDir(b.dir)
		if err != nil || len(mounts)+len(entries) > 0 {
			t.Errorf("leftovers: mounts %v, directories %v, %v", mounts, entries, err)
		}
	})
	return b
}

func (b *volumeBed) restart(t *testing.T) {
	t.Helper()
	b.Volumes = NewVolumes(b.dir, "boot", b.store)
	if err := b.Restore(func(err error) { t.Log(err) }); err != nil {
		t.Fatal(err)
	}
}

func (b *volumeBed) request(sub string) VolumeRequest {
	return VolumeRequest{ContainerID: ids.New(), ImageID: "sha256:x", Lower: b.lower, SubPath: sub}
}

func TestVolumeContent(t *testing.T) {
	b := newVolumes(t)
	for sub, want := range map[string]map[string]string{
		"":            {"data/file": "top", "data/sub/deep": "bottom"},
		"/":           {"data/file": "top"},
		"data":        {"file": "top", "sub/deep": "bottom"},
		"/data/sub/":  {"deep": "bottom"},
		"data/file":   {"": "top"},
		"inside":      {"deep": "bottom"},
		"climbs/deep": {"": "bottom"},
	} {
		req := b.request(sub)
		path, err := b.Mount(t.Context(), req)
		if err != nil {
			t.Errorf("%q: %v", sub, err)
			continue
		}
		for name, content := range want {
			if got := read(t, path, name); got != content {
				t.Errorf("%q: content of %s is %q, want %q", sub, name, got, content)
			}
		}
		for _, name := range []string{"deleted", "new"} {
			if _, err := os.Stat(filepath.Join(path, name)); err == nil {
				t.Errorf("%q: %s exists", sub, name)
			}
		}
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil {
			t.Fatal(err)
		}
		if flags := uint64(unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV); uint64(st.Flags)&(flags|unix.ST_NOEXEC) != flags {
			t.Errorf("%q: got mount flags %x", sub, st.Flags)
		}
		if mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(b.dir)); err != nil || len(mounts) != 1 {
			t.Errorf("%q: got mounts %v, %v, want one mount", sub, mounts, err)
		}
		if err := b.Unmount(t.Context(), req.ContainerID); err != nil {
			t.Error(err)
		}
	}
}

func TestVolumeOfOneLayer(t *testing.T) {
	b := newVolumes(t)
	b.lower = b.lower[:1]
	path, err := b.Mount(t.Context(), b.request(""))
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, path, "data/file"); got != "top" {
		t.Errorf("got %q", got)
	}
	if _, err := os.Lstat(filepath.Join(path, "deleted")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("whiteout is visible: %v", err)
	}
}

func TestVolumeRefused(t *testing.T) {
	b := newVolumes(t)
	for sub, class := range map[string]func(error) bool{
		"none":            errdefs.IsNotFound,
		"deleted":         errdefs.IsNotFound,
		"data/file/x":     errdefs.IsNotFound,
		"out":             errdefs.IsNotFound, // exists on the host
		"../../../../etc": errdefs.IsNotFound,
		"loop":            errdefs.IsInvalidArgument,
		"fifo":            errdefs.IsInvalidArgument,
	} {
		if path, err := b.Mount(t.Context(), b.request(sub)); !class(err) {
			t.Errorf("%q: %s, %v", sub, path, err)
		}
	}
	bad := b.request("")
	bad.ContainerID = "../x"
	if _, err := b.Mount(t.Context(), bad); !errdefs.IsInvalidArgument(err) {
		t.Errorf("invalid container id: got %v", err)
	}
	bad = b.request("")
	bad.Lower = []string{b.lower[0], filepath.Join(b.dir, "none")}
	if _, err := b.Mount(t.Context(), bad); err == nil {
		t.Error("a missing layer was mounted")
	}
	if r := b.Records(); len(r) > 0 {
		t.Errorf("failed volumes have records: %+v", r)
	}
}

// TestVolumesRestart restarts the store with mounted volumes and with the leftovers of processes
// that were killed during Mount. Sweep must remove the leftovers.
func TestVolumesRestart(t *testing.T) {
	b := newVolumes(t)
	live, dead := b.request("data"), b.request("")
	for _, r := range []VolumeRequest{live, dead} {
		if _, err := b.Mount(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	unrecorded := mkdir(t, b.dir, ids.New(), "0") // killed before the record was written
	write(t, "half", unrecorded, ".volume.json.123")
	interrupted := b.request("data") // killed between the two mounts of a sub path
	dir := filepath.Join(b.dir, interrupted.ContainerID, "0")
	mkdir(t, dir)
	if err := b.writeRecord(dir, interrupted); err != nil {
		t.Fatal(err)
	}
	if err := b.store.support.mount(overlay{lower: b.lower}, mkdir(t, dir, volumeImage)); err != nil {
		t.Fatal(err)
	}
	write(t, "{", mkdir(t, b.dir, ids.New(), "0"), volumeRecord)

	b.restart(t)
	if r := b.Records(); len(r) != 3 {
		t.Errorf("got records %+v", r)
	}
	if err := b.Sweep(t.Context(), func(id string) bool { return id == live.ContainerID }); err != nil {
		t.Fatal(err)
	}
	r := b.Records()
	if len(r) != 1 || r[0].ContainerID != live.ContainerID || r[0].ImageID != live.ImageID {
		t.Errorf("got records %+v after Sweep", r)
	}
	if got := read(t, b.dir, live.ContainerID, "0", volumeMount, "file"); got != "top" {
		t.Errorf("content of remaining volume is %q", got)
	}
}

func TestUnmountBusyVolume(t *testing.T) {
	b := newVolumes(t)
	req := b.request("")
	path, err := b.Mount(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(path, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Unmount(t.Context(), req.ContainerID); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), path) {
		t.Errorf("unmount busy volume: got %v", err)
	}
	if len(b.Records()) != 1 {
		t.Error("busy volume has no record")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Unmount(t.Context(), req.ContainerID); err != nil {
			t.Error(err)
		}
	}
}

// TestMountLabel mounts with a label with a comma, which ends an option of mount(2) unless the
// label is quoted. The order of the options matters, because overlay reads them one after the
// other.
func TestMountLabel(t *testing.T) {
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	s := overlaySupport{off: []string{"metacopy"}, volatile: true}
	o := overlay{lower: []string{"/a", "/b"}, upper: "/u", work: "/w", options: Options{MountLabel: label}}
	all := s.settings(o)
	if got := all[len(all)-1]; got != "context="+label {
		t.Errorf("option for fsconfig(2): got %q", got)
	}
	for _, o := range []overlay{o, {lower: o.lower, options: o.options}} {
		got := s.mount2Options(o, []string{"3", "4"})
		want := `metacopy=off,`
		if o.upper != "" {
			want += "upperdir=/u,workdir=/w,volatile,"
		}
		if want += `lowerdir=3:4,context="` + label + `"`; got != want {
			t.Errorf("options for mount(2): got %s, want %s", got, want)
		}
		o.options.MountLabel = ""
		if got := s.mount2Options(o, []string{"3", "4"}); strings.Contains(got, "context") {
			t.Errorf("options without a label: got %s", got)
		}
	}
}
