package tarheader

import (
	"archive/tar"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFromStat checks the type, the size and the device numbers of each kind of file.
func TestFromStat(t *testing.T) {
	for kind, want := range map[uint32]tar.Header{
		unix.S_IFREG: {Typeflag: tar.TypeReg, Size: 5},
		unix.S_IFDIR: {Typeflag: tar.TypeDir},
		unix.S_IFLNK: {Typeflag: tar.TypeSymlink},
		unix.S_IFIFO: {Typeflag: tar.TypeFifo},
		unix.S_IFCHR: {Typeflag: tar.TypeChar, Devmajor: 8, Devminor: 1},
		unix.S_IFBLK: {Typeflag: tar.TypeBlock, Devmajor: 8, Devminor: 1},
	} {
		h := FromStat("n", &unix.Stat_t{Mode: kind | 0o4750, Uid: 1, Gid: 2, Size: 5, Rdev: unix.Mkdev(8, 1), Mtim: unix.Timespec{Sec: 3, Nsec: 4}})
		if h == nil || h.Typeflag != want.Typeflag || h.Size != want.Size || h.Devmajor != want.Devmajor || h.Devminor != want.Devminor {
			t.Errorf("kind %o: got %+v, want %+v", kind, h, want)
			continue
		}
		if h.Name != "n" || h.Mode != 0o4750 || h.Uid != 1 || h.Gid != 2 || h.ModTime.UnixNano() != 3e9+4 || h.Format != tar.FormatPAX {
			t.Errorf("kind %o: got %+v", kind, h)
		}
	}
	if h := FromStat("n", &unix.Stat_t{Mode: unix.S_IFSOCK}); h != nil {
		t.Errorf("socket: got %+v", h)
	}
}
