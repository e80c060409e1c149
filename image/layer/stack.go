package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Stack is the layers of an image in the form that overlay needs.
//
// If several layers have a directory, overlay shows the owner and mode of the topmost one. A layer whose
// tar has an entry for a/b/c but not for a and a/b would thus replace the metadata of a and a/b with
// the metadata of the implied directories. Their right metadata cannot be stored in the layer, because a
// layer is unpacked without the layers below it, which differ between images. So an image in which the
// metadata differ gets an additional small layer at the top, the cover. The cover has only these
// directories, with the metadata of the topmost layer whose tar has an entry for them.
type Stack struct {
	layers  []*Layer          // topmost first
	implied []map[string]bool // the implied directories of each layer
	nodes   map[nodeKey]node  // cache of lookup
}

// NewStack returns the stack of layers, which are ordered from the lowest to the topmost. It omits layers
// that change nothing: layers below an opaque root, empty layers, and all but the topmost of equal
// layers, which overlay refuses.
func NewStack(layers []*Layer) *Stack {
	s := &Stack{nodes: make(map[nodeKey]node)}
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
		s.layers = append(s.layers, layers[0]) // overlay needs at least one layer
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

// Layers returns the layers that overlay mounts, topmost first.
func (s *Stack) Layers() []*Layer { return slices.Clone(s.layers) }

// Dirs returns the directories of the layers, topmost first.
func (s *Stack) Dirs() []string {
	dirs := make([]string, len(s.layers))
	for i, l := range s.layers {
		dirs[i] = l.Dir()
	}
	return dirs
}

// WriteCover writes the cover to dir, which must not exist, and reports whether the image needs a cover. If
// it needs none, WriteCover does not create dir.
func (s *Stack) WriteCover(dir string) (bool, error) {
	covered := make(map[string]bool)
	for _, l := range s.layers {
		for _, name := range l.Implied {
			if err := s.coverDir(dir, name, covered); err != nil {
				return false, fmt.Errorf("cover directory %q: %w", name, err)
			}
		}
	}
	return len(covered) > 0, nil
}

// coverDir adds a directory and its parents to the cover, if overlay would show wrong metadata.
func (s *Stack) coverDir(dir, name string, covered map[string]bool) error {
	from, differs, err := s.metadataSource(name)
	if err != nil || !differs || covered[name] {
		return err
	}
	same, err := hasDefaultMetadata(from)
	if err != nil || same {
		return err
	}
	for _, part := range parents(name) {
		if covered[part] {
			continue
		}
		from, _, err := s.metadataSource(part)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, part)
		if err := errors.Join(os.Mkdir(to, 0o755), CopyMetadata(to, from)); err != nil {
			return err
		}
		covered[part] = true
	}
	return nil
}

// parents returns a path and its parents: ".", "a" and "a/b" for "a/b".
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

// metadataSource returns the directory with the metadata for name, and reports whether overlay would show
// the metadata of another directory.
func (s *Stack) metadataSource(name string) (from string, differs bool, err error) {
	top := ""
	for i, l := range s.layers {
		n, err := s.lookup(i, name)
		if err != nil {
			return "", false, err
		}
		if n.isDir && !n.implied {
			return filepath.Join(l.Dir(), name), top != "", nil
		}
		if n.isDir && top == "" {
			top = filepath.Join(l.Dir(), name)
		}
		if n.hidesBelow {
			break
		}
	}
	return top, false, nil
}

// node is the result of the lookup of a path in one layer.
type node struct {
	isDir, implied bool
	hidesBelow     bool // the layers below are hidden at this path
}

type nodeKey struct {
	layer int
	name  string
}

// lookup looks up a path in one layer as overlay does. It never follows symbolic links, because layers do
// not change, and each component is known to be a directory before the next one is looked up.
func (s *Stack) lookup(i int, name string) (node, error) {
	key := nodeKey{i, name}
	if n, ok := s.nodes[key]; ok {
		return n, nil
	}
	n, err := s.readNode(i, name)
	if err == nil {
		s.nodes[key] = n
	}
	return n, err
}

// readNode is lookup without the cache.
func (s *Stack) readNode(i int, name string) (node, error) {
	l := s.layers[i]
	if name == "." {
		return node{isDir: true, implied: s.implied[i][name], hidesBelow: l.OpaqueRoot}, nil
	}
	parent, err := s.lookup(i, path.Dir(name))
	if err != nil || !parent.isDir {
		return node{hidesBelow: parent.hidesBelow}, err
	}
	full := filepath.Join(l.Dir(), name)
	info, err := os.Lstat(full)
	if errors.Is(err, fs.ErrNotExist) {
		return node{hidesBelow: parent.hidesBelow}, nil
	}
	if err != nil {
		return node{}, err
	}
	if !info.IsDir() {
		return node{hidesBelow: true}, nil
	}
	opaque, err := isOpaque(full)
	return node{isDir: true, implied: s.implied[i][name], hidesBelow: parent.hidesBelow || opaque}, err
}
