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

// ownerMark is an extended attribute of the directories that this package makes.
// The package removes only directories that have the mark. The mark is still
// there after a restart of the daemon.
const ownerMark = "trusted.criserver.made"

// CheckPath returns an error if p is not a valid cgroup path. A path must be absolute and
// clean, and must not be the root.
func CheckPath(p string) error {
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

// Make makes the cgroup with its missing parents in every hierarchy and keeps it until Release.
// On v2, Make enables all controllers in all parents of the cgroup. Make must not be used below
// a cgroup that systemd manages: see MakeWithoutControllers.
func (t *Tree) Make(p string) error { return t.acquire(p, true) }

// MakeWithoutControllers is Make without a change to the controllers of any parent. While a
// cgroup of v2 has controllers enabled for its children, the kernel puts no
// process into the cgroup itself (the "no internal processes" rule). systemd
// starts every service in the cgroup of its unit, so the controllers in
// cgroup.subtree_control of that cgroup must stay disabled.
func (t *Tree) MakeWithoutControllers(p string) error { return t.acquire(p, false) }

// acquire makes the cgroup, unless it has users already, and adds a user.
func (t *Tree) acquire(p string, controllers bool) error {
	if err := CheckPath(p); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refs[p] > 0 {
		t.refs[p]++
		return nil
	}
	for _, root := range t.roots {
		if err := t.makeIn(root, p, controllers && t.v2); err != nil {
			t.prune(p)
			return fmt.Errorf("make cgroup %s: %w", p, err)
		}
	}
	t.refs[p]++
	return nil
}

// Release undoes one Make or MakeWithoutControllers. The last Release of a cgroup removes the
// cgroup and its parents, if this package made them and they are empty.
func (t *Tree) Release(p string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refs[p]--; t.refs[p] > 0 {
		return
	}
	delete(t.refs, p)
	t.prune(p)
}

// RemoveUnused removes a cgroup that an earlier process made, and its parents, up to the first one that has users in
// this process. It keeps a cgroup that this package did not make or that is not empty.
func (t *Tree) RemoveUnused(p string) error {
	if err := CheckPath(p); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prune(p)
	return nil
}

// makeIn makes the cgroup with its missing parents in one hierarchy.
func (t *Tree) makeIn(root, p string, controllers bool) error {
	dir := filepath.Join(root, p)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	dir = root
	for name := range strings.SplitSeq(strings.TrimPrefix(p, "/"), "/") {
		parent := dir
		dir = filepath.Join(dir, name)
		if controllers {
			enableControllers(parent)
		}
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := unix.Setxattr(dir, ownerMark, []byte("1"), 0); err != nil {
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

// enableControllers enables every controller of dir for the children of dir. The
// kernel refuses that while dir has processes itself. Then the OCI runtime
// reports the error later and names the controller.
func enableControllers(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(b)) {
		_ = write(filepath.Join(dir, "cgroup.subtree_control"), "+"+c)
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
		if err := write(filepath.Join(dir, name), string(b)); err != nil {
			return err
		}
	}
	return nil
}

// prune removes p and its parents, up to the first one that has users. The caller must hold mu.
func (t *Tree) prune(p string) {
	for ; p != "/" && p != "." && t.refs[p] == 0; p = path.Dir(p) {
		if !t.isMarked(p) {
			continue
		}
		for _, root := range t.roots {
			// A busy cgroup still has users. The last Release removes it.
			_ = unix.Rmdir(filepath.Join(root, p))
		}
	}
}

// isMarked reports whether this package made p. A mark in one hierarchy is enough: a
// daemon that was killed during Make may not have marked the last directory.
func (t *Tree) isMarked(p string) bool {
	for _, root := range t.roots {
		var mark [1]byte
		if _, err := unix.Getxattr(filepath.Join(root, p), ownerMark, mark[:]); err == nil {
			return true
		}
	}
	return false
}
