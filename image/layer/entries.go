package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"

	blockSize = 4096

	// maxImplied is the maximum number of bytes of the names in Layer.Implied, which are all in
	// the record of the layer.
	maxImplied = 16 << 20
	// nameBytesPerEntry times the maximum number of entries, but at least minNameBytes, is the
	// maximum number of bytes of names. Names stay in memory while the layer is unpacked.
	nameBytesPerEntry = 256
	minNameBytes      = 1 << 20
)

// unpacker handles the entries of a layer's tar for the archive library, which calls checkHeader
// before it handles an entry, and placeEntry when the parent directory of the entry exists and
// the path of the entry is resolved. The root directory of the calling thread is the directory
// of the layer.
type unpacker struct {
	limits    Limits
	layer     Layer
	fileBytes int64
	nameBytes int64       // of all entries
	root      *tar.Header // the entry of the root directory, or nil
	// dirs has the directories so far. The value is true if the tar has an entry for the
	// directory, and false if it only has entries below the directory.
	dirs map[string]bool
	// whiteouts has the paths that are whited out.
	whiteouts map[string]struct{}
}

func newUnpacker(limits Limits) *unpacker {
	return &unpacker{limits: limits, dirs: make(map[string]bool), whiteouts: make(map[string]struct{})}
}

// checkHeader checks the limits, refuses invalid entries and normalizes the header. It returns
// false if the archive library must skip the entry.
func (u *unpacker) checkHeader(h *tar.Header) (bool, error) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return false, nil
	}
	if err := u.count(h); err != nil {
		return false, err
	}
	if err := u.countNames(h); err != nil {
		return false, err
	}
	if err := checkNames(h); err != nil {
		return false, err
	}
	if err := normalize(h); err != nil {
		return false, err
	}
	name := path.Clean("/" + h.Name)
	if name == "/" {
		u.root = h
		return false, nil
	}
	for _, part := range strings.Split(name, "/") {
		// aufs stored its own metadata under such names in layers.
		if strings.HasPrefix(part, ".wh..wh.") && part != opaqueMarker {
			return false, nil
		}
	}
	return true, u.replaceWhiteouts(name)
}

// count adds an entry to the number of entries and to the disk usage of the layer.
func (u *unpacker) count(h *tar.Header) error {
	u.layer.Entries++
	if u.layer.Entries > u.limits.Entries {
		return fmt.Errorf("layer has more than %d entries: %w", u.limits.Entries, errdefs.ErrResourceExhausted)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		u.layer.Bytes += blockSize
		u.layer.Inodes++
	case tar.TypeLink:
	default:
		if h.Size < 0 || h.Size > u.limits.Bytes-u.fileBytes {
			return fmt.Errorf("layer has more than %d bytes of files: %w", u.limits.Bytes, errdefs.ErrResourceExhausted)
		}
		u.fileBytes += h.Size
		u.layer.Bytes += uint64(h.Size+blockSize-1) / blockSize * blockSize
		u.layer.Inodes++
	}
	return nil
}

// countNames limits the memory of the entries: the names, and the extended attributes of
// directories, whose headers stay in memory because their times are set at the end.
func (u *unpacker) countNames(h *tar.Header) error {
	n := len(h.Name) + len(h.Linkname)
	if h.Typeflag == tar.TypeDir {
		for key, value := range h.PAXRecords {
			n += len(key) + len(value)
		}
	}
	u.nameBytes += int64(n)
	if limit := max(int64(u.limits.Entries)*nameBytesPerEntry, minNameBytes); u.nameBytes > limit {
		return fmt.Errorf("layer has more than %d bytes of names: %w", limit, errdefs.ErrResourceExhausted)
	}
	return nil
}

// replaceWhiteouts replaces a whiteout of a parent directory of name with a directory. finish
// makes that directory opaque, so that it hides the directory in the layers below.
func (u *unpacker) replaceWhiteouts(name string) error {
	if len(u.whiteouts) == 0 {
		return nil
	}
	for i := 1; i < len(name); i++ {
		if name[i] != '/' {
			continue
		}
		dir := name[:i]
		if _, ok := u.whiteouts[dir]; !ok {
			continue
		}
		if info, err := os.Lstat(dir); err != nil || info.IsDir() {
			continue
		}
		if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o755)); err != nil {
			return err
		}
	}
	return nil
}

// placeEntry handles whiteouts, and reports whether the archive library must write a file. name
// is the path of the entry in the layer, without symbolic links.
func (u *unpacker) placeEntry(h *tar.Header, name string) (bool, error) {
	dir, base := path.Split(name)
	if err := u.addParents(dir); err != nil {
		return false, err
	}
	switch {
	case base == opaqueMarker:
		return false, u.makeOpaque(path.Clean(dir))
	case strings.HasPrefix(base, whiteoutPrefix):
		return false, u.makeWhiteout(path.Join(dir, base[len(whiteoutPrefix):]))
	}
	switch h.Typeflag {
	case tar.TypeDir:
		u.dirs[name] = true
	case tar.TypeLink:
		return true, linkXattrs(h)
	}
	return true, nil
}

// addParents adds a directory and its parents to dirs.
func (u *unpacker) addParents(dir string) error {
	for dir = path.Clean(dir); dir != "/"; dir = path.Dir(dir) {
		if _, ok := u.dirs[dir]; ok {
			return nil
		}
		u.dirs[dir] = false
	}
	// Parents without an entry also need inodes.
	if len(u.dirs) > u.limits.Entries {
		return fmt.Errorf("layer has more than %d directories: %w", u.limits.Entries, errdefs.ErrResourceExhausted)
	}
	return nil
}

func (u *unpacker) makeOpaque(dir string) error {
	if dir == "/" {
		// Overlay does not read the attribute of the root of a layer.
		u.layer.OpaqueRoot = true
		return nil
	}
	return unix.Setxattr(dir, opaqueXattr, []byte{'y'}, 0)
}

// makeWhiteout hides name in the layers below. A whiteout does not affect the entry of this layer
// at name. The order of both in the tar has no influence.
func (u *unpacker) makeWhiteout(name string) error {
	u.whiteouts[name] = struct{}{}
	err := unix.Mknod(name, unix.S_IFCHR, 0)
	if errors.Is(err, fs.ErrExist) {
		return nil // if name is a directory, finish makes it opaque
	}
	if err != nil {
		return fmt.Errorf("create whiteout of %q: %w", name, err)
	}
	return nil
}

// finish runs after the last entry: it makes directories opaque whose path is
// whited out, lists the implied directories, and sets the metadata of the root directory.
func (u *unpacker) finish() error {
	for name := range u.whiteouts {
		if info, err := os.Lstat(name); err == nil && info.IsDir() {
			if err := u.makeOpaque(name); err != nil {
				return err
			}
		}
	}
	implied := 0
	for name, hasEntry := range u.dirs {
		if hasEntry {
			continue
		}
		if info, err := os.Lstat(name); err == nil && info.IsDir() {
			if implied += len(name); implied > maxImplied {
				return fmt.Errorf("layer has more than %d bytes of names of directories without an entry: %w", maxImplied, errdefs.ErrResourceExhausted)
			}
			u.layer.Implied = append(u.layer.Implied, name[1:])
			u.layer.Bytes += blockSize
			u.layer.Inodes++
		}
	}
	if u.root == nil {
		u.layer.Implied = append(u.layer.Implied, ".")
		u.layer.Bytes += blockSize
		u.layer.Inodes++
		return os.Chmod("/", 0o755)
	}
	return u.finishRoot()
}

// finishRoot sets the metadata of the layer's root directory, because the archive library does
// not handle the entry of the root directory.
func (u *unpacker) finishRoot() error {
	h := u.root
	errs := []error{os.Lchown("/", h.Uid, h.Gid)}
	for key, value := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, xattrRecord); ok {
			errs = append(errs, unix.Setxattr("/", attr, []byte(value), 0))
		}
	}
	errs = append(errs, os.Chmod("/", h.FileInfo().Mode()))
	if h.ModTime.After(time.Unix(0, 0)) {
		errs = append(errs, os.Chtimes("/", h.ModTime, h.ModTime))
	}
	return errors.Join(errs...)
}
