package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Stack is an image's layers as overlay wants them.
//
// Overlay shows a directory that several layers have with the owner and mode of
// the topmost. So a layer that brings a/b/c but says nothing of a and a/b would
// give these the metadata they happened to be made with. The layer cannot know
// better: it is unpacked without the ones below, and other images have it on
// top of others. Hence each image in which that makes a difference gets one
// small layer more, the cover, on top of all: it has just those directories,
// with the metadata of the topmost layer that does speak of them.
type Stack struct {
	layers  []*Layer // topmost first
	implied []map[string]bool
	seen    map[lookup]node
}

// Of returns the stack of layers, lowest first. Layers that add nothing are
// left out: the ones below an opaque root, empty ones, and all but the topmost
// of equals, which overlay would refuse.
func Of(layers []*Layer) *Stack {
	s := &Stack{seen: make(map[lookup]node)}
	have := make(map[digest.Digest]bool)
	for i := len(layers) - 1; i >= 0; i-- {
		l := layers[i]
		if l.Entries == 0 || have[l.DiffID] {
			continue
		}
		have[l.DiffID] = true
		s.layers = append(s.layers, l)
		if l.OpaqueRoot {
			break
		}
	}
	if len(s.layers) == 0 && len(layers) > 0 {
		s.layers = append(s.layers, layers[0]) // overlay needs one
	}
	for _, l := range s.layers {
		implied := make(map[string]bool, len(l.Implied))
		for _, name := range l.Implied {
			implied[name] = true
		}
		s.implied = append(s.implied, implied)
	}
	return s
}

// Dirs returns the layers' directories, topmost first.
func (s *Stack) Dirs() []string {
	dirs := make([]string, len(s.layers))
	for i, l := range s.layers {
		dirs[i] = l.Dir()
	}
	return dirs
}

// Cover makes the cover in dir, which does not exist yet, and reports whether
// one is needed. When not, it makes nothing.
func (s *Stack) Cover(dir string) (bool, error) {
	covered := make(map[string]bool)
	for _, l := range s.layers {
		for _, name := range l.Implied {
			if err := s.cover(dir, name, covered); err != nil {
				return false, fmt.Errorf("cover directory %q: %w", name, err)
			}
		}
	}
	return len(covered) > 0, nil
}

// cover puts name into the cover if it must be, and its parents with it.
func (s *Stack) cover(dir, name string, covered map[string]bool) error {
	from, differs, err := s.spokenFor(name)
	if err != nil || !differs || covered[name] {
		return err
	}
	same, err := plainDir(from)
	if err != nil || same {
		return err
	}
	for _, part := range parents(name) {
		if covered[part] {
			continue
		}
		from, _, err := s.spokenFor(part)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, part)
		if err := errors.Join(os.Mkdir(to, 0o755), CopyMeta(to, from)); err != nil {
			return err
		}
		covered[part] = true
	}
	return nil
}

// parents returns ".", "a", "a/b" for "a/b".
func parents(name string) []string {
	all := []string{"."}
	if name == "." {
		return all
	}
	for i := range len(name) {
		if name[i] == '/' {
			all = append(all, name[:i])
		}
	}
	return append(all, name)
}

// spokenFor returns the directory whose metadata name should have, and whether
// overlay left alone would show those of another one.
func (s *Stack) spokenFor(name string) (from string, differs bool, err error) {
	top := ""
	for i, l := range s.layers {
		n, err := s.look(i, name)
		if err != nil {
			return "", false, err
		}
		if n.isDir && !n.implied {
			return filepath.Join(l.Dir(), name), top != "", nil
		}
		if n.isDir && top == "" {
			top = filepath.Join(l.Dir(), name)
		}
		if n.ends {
			break
		}
	}
	return top, false, nil
}

// node is what one layer has to say on a path.
type node struct {
	isDir, implied bool
	ends           bool // the layers below do not show
}

type lookup struct {
	layer int
	name  string
}

// look is a lookup as overlay does it, in one layer. The layer is at rest and
// every component is known for a directory before the next is looked up, so
// links are never followed.
func (s *Stack) look(i int, name string) (node, error) {
	key := lookup{i, name}
	if n, ok := s.seen[key]; ok {
		return n, nil
	}
	n, err := s.lookAt(i, name)
	if err == nil {
		s.seen[key] = n
	}
	return n, err
}

func (s *Stack) lookAt(i int, name string) (node, error) {
	l := s.layers[i]
	if name == "." {
		return node{isDir: true, implied: s.implied[i][name], ends: l.OpaqueRoot}, nil
	}
	parent, err := s.look(i, path.Dir(name))
	if err != nil || !parent.isDir {
		return node{ends: parent.ends}, err
	}
	full := filepath.Join(l.Dir(), name)
	info, err := os.Lstat(full)
	if errors.Is(err, fs.ErrNotExist) {
		return node{ends: parent.ends}, nil
	}
	if err != nil {
		return node{}, err
	}
	if !info.IsDir() {
		return node{ends: true}, nil
	}
	opaque, err := isOpaque(full)
	return node{isDir: true, implied: s.implied[i][name], ends: parent.ends || opaque}, err
}

func isOpaque(dir string) (bool, error) {
	var value [1]byte
	n, err := unix.Lgetxattr(dir, opaqueXattr, value[:])
	if errors.Is(err, unix.ENODATA) {
		return false, nil
	}
	return n == 1 && value[0] == 'y', err
}

// plainDir says whether a directory has the metadata that implied ones get.
func plainDir(dir string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return false, err
	}
	attrs, err := xattrs(dir)
	return st.Mode == unix.S_IFDIR|0o755 && st.Uid == 0 && st.Gid == 0 && len(attrs) == 0, err
}

// CopyMeta gives the directory dst the owner, mode, time and extended
// attributes of src, but not what overlay has noted there for itself.
func CopyMeta(dst, src string) error {
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: src, Err: err}
	}
	attrs, err := xattrs(src)
	if err != nil {
		return err
	}
	if err := os.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	for name, value := range attrs {
		if err := unix.Lsetxattr(dst, name, value, 0); err != nil {
			return &os.PathError{Op: "setxattr", Path: dst, Err: err}
		}
	}
	if err := unix.Chmod(dst, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: dst, Err: err}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, dst, times, unix.AT_SYMLINK_NOFOLLOW)
}

// xattrs returns the attributes that a layer's tar can have set.
func xattrs(dir string) (map[string][]byte, error) {
	n, err := unix.Llistxattr(dir, nil)
	names := make([]byte, max(n, 0))
	if err == nil && n > 0 {
		n, err = unix.Llistxattr(dir, names)
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: dir, Err: err}
	}
	attrs := make(map[string][]byte)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "security.") {
			continue
		}
		value := make([]byte, 64<<10) // the kernel's bound
		n, err := unix.Lgetxattr(dir, name, value)
		if err != nil {
			return nil, &os.PathError{Op: "getxattr", Path: dir, Err: err}
		}
		attrs[name] = value[:n]
	}
	return attrs, nil
}
