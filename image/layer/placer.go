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
	xattrRecord    = "SCHILY.xattr."

	blockSize = 4096
	// maxID is the highest user or group id; the one above it means "leave it".
	maxID = 1<<32 - 2
)

// placer sees each entry of a tar twice: check before the library has looked at
// it, place when its parent directory stands and its own path is resolved. It
// runs with the layer's directory as root directory.
type placer struct {
	limits Limits
	layer  Layer
	bytes  int64
	names  int64       // bytes of the names and targets of all entries
	root   *tar.Header // the entry of the root directory itself
	// dirs holds the directories met so far: whether the tar has an entry for
	// them, or only for something in them.
	dirs map[string]bool
	// removed are the paths with a whiteout.
	removed map[string]struct{}
}

func newPlacer(limits Limits) *placer {
	return &placer{limits: limits, dirs: make(map[string]bool), removed: make(map[string]struct{})}
}

// check refuses what must not be, trims what should not be, and counts.
func (p *placer) check(h *tar.Header) (bool, error) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return false, nil
	}
	if err := p.count(h); err != nil {
		return false, err
	}
	if err := p.countNames(h); err != nil {
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
		p.root = h
		return false, nil
	}
	for _, part := range strings.Split(name, "/") {
		// Remains of aufs, which has stored its own records in layers.
		if strings.HasPrefix(part, ".wh..wh.") && part != opaqueMarker {
			return false, nil
		}
	}
	return true, p.replaceRemoved(name)
}

func (p *placer) count(h *tar.Header) error {
	p.layer.Entries++
	if p.layer.Entries > p.limits.Entries {
		return fmt.Errorf("layer has more than %d entries: %w", p.limits.Entries, errdefs.ErrResourceExhausted)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		p.layer.Bytes += blockSize
		p.layer.Inodes++
	case tar.TypeLink:
	default:
		if h.Size < 0 || h.Size > p.limits.Bytes-p.bytes {
			return fmt.Errorf("layer's files are more than %d bytes: %w", p.limits.Bytes, errdefs.ErrResourceExhausted)
		}
		p.bytes += h.Size
		p.layer.Bytes += uint64(h.Size+blockSize-1) / blockSize * blockSize
		p.layer.Inodes++
	}
	return nil
}

// normalize brings a header to what the library handles and the host allows.
func normalize(h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeGNUSparse, tar.TypeCont:
		h.Typeflag = tar.TypeReg // the reader fills the holes
	case tar.TypeReg, '\x00', tar.TypeDir, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	default:
		return fmt.Errorf("layer entry %q is of unknown type %q: %w", h.Name, h.Typeflag, errdefs.ErrInvalidArgument)
	}
	if h.Uid < 0 || h.Uid > maxID || h.Gid < 0 || h.Gid > maxID {
		return fmt.Errorf("layer entry %q is owned by %d:%d: %w", h.Name, h.Uid, h.Gid, errdefs.ErrInvalidArgument)
	}
	keepXattrs(h)
	if h.Typeflag == tar.TypeDir {
		release(h)
	}
	return nil
}

// replaceRemoved makes room for an entry below a path whose whiteout came
// first: there, a directory that hides the one below takes its place.
func (p *placer) replaceRemoved(name string) error {
	if len(p.removed) == 0 {
		return nil
	}
	for i := 1; i < len(name); i++ {
		if name[i] != '/' {
			continue
		}
		dir := name[:i]
		if _, ok := p.removed[dir]; !ok {
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

// place is called with the entry's path in the layer, links resolved, and
// reports whether there is a file to write.
func (p *placer) place(h *tar.Header, name string) (bool, error) {
	dir, base := path.Split(name)
	if err := p.noteParents(dir); err != nil {
		return false, err
	}
	switch {
	case base == opaqueMarker:
		return false, p.opaque(path.Clean(dir))
	case strings.HasPrefix(base, whiteoutPrefix):
		return false, p.remove(path.Join(dir, base[len(whiteoutPrefix):]))
	}
	switch h.Typeflag {
	case tar.TypeDir:
		p.dirs[name] = true
	case tar.TypeLink:
		return true, linkXattrs(h)
	}
	return true, nil
}

func (p *placer) noteParents(dir string) error {
	for dir = path.Clean(dir); dir != "/"; dir = path.Dir(dir) {
		if _, ok := p.dirs[dir]; ok {
			return nil
		}
		p.dirs[dir] = false
	}
	// Parents that no entry speaks of cost inodes all the same.
	if len(p.dirs) > p.limits.Entries {
		return fmt.Errorf("layer has more than %d directories: %w", p.limits.Entries, errdefs.ErrResourceExhausted)
	}
	return nil
}

func (p *placer) opaque(dir string) error {
	if dir == "/" {
		// Overlay does not look for the mark on the root of a layer.
		p.layer.OpaqueRoot = true
		return nil
	}
	return unix.Setxattr(dir, opaqueXattr, []byte{'y'}, 0)
}

// remove hides name in the layers below. What this layer itself has at name
// stays, whichever came first in the tar: a whiteout speaks of lower layers.
func (p *placer) remove(name string) error {
	p.removed[name] = struct{}{}
	err := unix.Mknod(name, unix.S_IFCHR, 0)
	if errors.Is(err, fs.ErrExist) {
		return nil // finish sees to it if it is a directory
	}
	if err != nil {
		return fmt.Errorf("make whiteout of %q: %w", name, err)
	}
	return nil
}

// finish does what can only be done when all entries are there.
func (p *placer) finish() error {
	for name := range p.removed {
		if info, err := os.Lstat(name); err == nil && info.IsDir() {
			if err := p.opaque(name); err != nil {
				return err
			}
		}
	}
	implied := 0
	for name, explicit := range p.dirs {
		if explicit {
			continue
		}
		if info, err := os.Lstat(name); err == nil && info.IsDir() {
			if implied += len(name); implied > maxImplied {
				return fmt.Errorf("names of directories that have no entry in the layer are more than %d bytes: %w", maxImplied, errdefs.ErrResourceExhausted)
			}
			p.layer.Implied = append(p.layer.Implied, name[1:])
			p.layer.Bytes += blockSize
			p.layer.Inodes++
		}
	}
	if p.root == nil {
		p.layer.Implied = append(p.layer.Implied, ".")
		p.layer.Bytes += blockSize
		p.layer.Inodes++
		return os.Chmod("/", 0o755)
	}
	return p.finishRoot()
}

// finishRoot gives the layer's root directory what its entry says; the library
// passes it over.
func (p *placer) finishRoot() error {
	h := p.root
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
