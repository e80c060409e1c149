package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// madeMark is the extended attribute by which a directory made here is known
// again, also after a restart, so that nobody else's is ever removed.
const madeMark = "trusted.criserver.made"

// Valid says why p cannot be a cgroup path: it must be absolute and clean, and
// may not be the root.
func Valid(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("cgroup path %q must be absolute", p)
	case path.Clean(p) != p:
		return fmt.Errorf(`cgroup path %q must not have empty, "." or ".." components`, p)
	case p == "/":
		return errors.New("cgroup path must not be the root")
	case strings.ContainsAny(p, "\n\x00"):
		return fmt.Errorf("cgroup path %q must not contain a line break or NUL", p)
	}
	return nil
}

// Make makes the cgroup with its missing parents in every hierarchy and holds
// it until Release.
func (t *Tree) Make(p string) error {
	if err := Valid(p); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held[p] > 0 {
		t.held[p]++
		return nil
	}
	for _, root := range t.roots {
		if err := t.makeIn(root, p); err != nil {
			t.prune(p)
			return fmt.Errorf("make cgroup %s: %w", p, err)
		}
	}
	t.held[p]++
	return nil
}

// Release gives back what Make took. With its last user a cgroup that was made
// here is removed, and so are its parents, as far as they are empty.
func (t *Tree) Release(p string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held[p]--; t.held[p] > 0 {
		return
	}
	delete(t.held, p)
	t.prune(p)
}

func (t *Tree) makeIn(root, p string) error {
	dir := filepath.Join(root, p)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	dir = root
	for name := range strings.SplitSeq(strings.TrimPrefix(p, "/"), "/") {
		parent := dir
		dir = filepath.Join(dir, name)
		if t.v2 {
			enableControllers(parent)
		}
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := unix.Setxattr(dir, madeMark, []byte("1"), 0); err != nil {
			return fmt.Errorf("mark %s: %w", dir, err)
		}
		if root == t.hierarchies["cpuset"] {
			if err := inheritCpuset(parent, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// enableControllers hands every controller that dir has to its children. One
// that cannot be handed on (it is in use by processes of dir itself) is left
// to the OCI runtime's own error, which names it.
func enableControllers(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(b)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// inheritCpuset fills a new v1 cpuset, which takes no process while its CPUs
// and memory nodes are empty.
func inheritCpuset(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0); err != nil {
			return err
		}
	}
	return nil
}

// prune is called with mu held.
func (t *Tree) prune(p string) {
	for ; p != "/" && p != "." && t.held[p] == 0; p = path.Dir(p) {
		if !t.made(p) {
			continue
		}
		for _, root := range t.roots {
			// Busy means that it still has users; the last one removes it.
			_ = unix.Rmdir(filepath.Join(root, p))
		}
	}
}

// made says whether p was made here. A mark in one hierarchy is enough: a daemon
// that was killed amid Make has not come to mark the last one it made.
func (t *Tree) made(p string) bool {
	for _, root := range t.roots {
		var mark [1]byte
		if _, err := unix.Getxattr(filepath.Join(root, p), madeMark, mark[:]); err == nil {
			return true
		}
	}
	return false
}
