package changes

import (
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// classify compares one file of the writable layer with the file that the image has at its path.
// lower are the directories of the image that overlay merges with d, topmost first.
func (w *walk) classify(d dir, f *os.File, lower []openFile, name string) (entry, error) {
	var up unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), name, &up, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return entry{}, err
	}
	low, dirs := lookup(lower, name)
	c := Change{Path: absolute(join(d.path, name)), Type: typeOf(up.Mode), Size: size(&up)}
	switch {
	case isWhiteout(&up):
		if low == nil {
			return entry{}, nil // the image does not have the file
		}
		c.Kind, c.Type, c.Size = Removed, typeOf(low.Mode), size(low)
		return entry{change: &c}, nil
	case isDir(&up):
		return w.classifyDir(d, f, name, c, &up, low, dirs)
	}
	if up.Nlink > 1 {
		c.HardLink = w.linked[up.Ino]
		w.linked[up.Ino] = true
	}
	c.Kind = Added
	if low != nil {
		c.Kind = Changed
		c.Metadata = isRegular(&up) && isRegular(low) && up.Size == low.Size && up.Mtim == low.Mtim
	}
	return entry{change: &c}, nil
}

// classifyDir is classify for a directory with the status up. low is the status of the file in the
// image, or nil, and dirs are the directories of the image at the path.
func (w *walk) classifyDir(d dir, f *os.File, name string, c Change, up, low *unix.Stat_t, dirs []lowerDir) (entry, error) {
	attrs, err := readDirAttrs(f, name)
	if err != nil {
		return entry{}, err
	}
	sub := &dir{path: join(d.path, name), lower: dirs}
	switch {
	case attrs.redirect != "":
		// An absolute redirect begins at the top of the overlay. Others are names in the same directory.
		c.Kind = Added
		if strings.HasPrefix(attrs.redirect, "/") {
			c.From, sub.lower = absolute(attrs.redirect), w.resolve(attrs.redirect)
		} else {
			c.From, sub.lower = absolute(join(lowerPath(d), attrs.redirect)), w.resolveIn(d.lower, attrs.redirect)
		}
	case low == nil:
		c.Kind = Added
	case !isDir(low):
		c.Kind, sub.lower = Changed, nil
	case attrs.opaque:
		c.Kind, c.Opaque = Removed, true
	case !w.sameMetadata(up, low):
		c.Kind, c.Metadata = Changed, true
	default:
		return entry{sub: sub}, nil
	}
	return entry{change: &c, sub: sub}, nil
}

// lowerPath returns the path of a directory in the image.
func lowerPath(d dir) string {
	if len(d.lower) > 0 {
		return d.lower[0].path
	}
	return d.path
}

// lookup returns the status of the file that the image shows at a name, or nil if there is none. If
// the file is a directory, lookup returns the directories that overlay merges.
func lookup(lower []openFile, name string) (found *unix.Stat_t, dirs []lowerDir) {
	for _, l := range lower {
		var st unix.Stat_t
		if unix.Fstatat(int(l.file.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}
		if isWhiteout(&st) || found != nil && !isDir(&st) {
			return found, dirs
		}
		if found == nil {
			found = &st
		}
		if !isDir(&st) {
			return found, nil
		}
		dirs = append(dirs, lowerDir{l.layer, join(l.path, name)})
		if attrs, err := readDirAttrs(l.file, name); err == nil && attrs.opaque {
			return found, dirs
		}
	}
	return found, dirs
}

// resolve returns the directories of the image at an absolute path.
func (w *walk) resolve(name string) []lowerDir {
	dirs := make([]lowerDir, len(w.lower))
	for i := range dirs {
		dirs[i].layer = i
	}
	return w.resolveIn(dirs, name)
}

// resolveIn returns the directories of the image at a path below other directories.
func (w *walk) resolveIn(dirs []lowerDir, name string) []lowerDir {
	for part := range strings.SplitSeq(strings.Trim(path.Clean(name), "/"), "/") {
		open, closeAll := w.openLower(dirs)
		_, dirs = lookup(open, part)
		closeAll()
	}
	return dirs
}

// sameMetadata reports whether a directory of the writable layer has the owner and the mode that it
// has in the image.
func (w *walk) sameMetadata(up, low *unix.Stat_t) bool {
	uid, gid := low.Uid, low.Gid
	if w.layers.MapUID != nil {
		uid = w.layers.MapUID(uid)
	}
	if w.layers.MapGID != nil {
		gid = w.layers.MapGID(gid)
	}
	return up.Mode == low.Mode && up.Uid == uid && up.Gid == gid
}

// dirAttrs are the attributes by which overlay marks directories.
type dirAttrs struct {
	opaque   bool
	redirect string
}

// attrPrefixes are the namespaces of the attributes of overlay. Mounts with the option userxattr use
// the second one.
var attrPrefixes = []string{"trusted.overlay.", "user.overlay."}

func readDirAttrs(parent *os.File, name string) (a dirAttrs, err error) {
	f, err := openBelow(parent, name)
	if err != nil {
		return a, err
	}
	defer f.Close()
	for _, prefix := range attrPrefixes {
		a.opaque = a.opaque || getAttr(f, prefix+"opaque") == "y"
		if a.redirect == "" {
			a.redirect = getAttr(f, prefix+"redirect")
		}
	}
	return a, nil
}

// getAttr returns an extended attribute, or "" if there is none.
func getAttr(f *os.File, name string) string {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Fgetxattr(int(f.Fd()), name, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}
