package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// hugetlb returns the key in hierarchies of the hierarchy that limits huge pages, or nil if
// there is none, and the suffix of the names of limit files in that hierarchy.
func (t *Tree) hugetlb() (controller *string, suffix string) {
	unified, v1, beside := "", "hugetlb", hybridKey
	switch {
	case t.v2:
		return &unified, "max"
	case t.hierarchies[v1] != "":
		return &v1, "limit_in_bytes"
	case t.HybridHugetlb():
		return &beside, "max"
	}
	return nil, ""
}

// HybridHugetlb reports whether the hugetlb controller is on the v2 hierarchy of a hybrid host.
// OCI runtimes make cgroups in that hierarchy, but set no limits.
func (t *Tree) HybridHugetlb() bool {
	root := t.hierarchies[hybridKey]
	return !t.v2 && root != "" && t.hierarchies["hugetlb"] == "" && fileHasWord(filepath.Join(root, "cgroup.controllers"), "hugetlb")
}

// hugetlbFiles returns the names of the files with huge page limits of a cgroup.
func (t *Tree) hugetlbFiles(p string) []string {
	controller, suffix := t.hugetlb()
	found, _ := filepath.Glob(filepath.Join(t.Dir(*controller, p), "hugetlb.*."+suffix))
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found
}

// HugePages is the use of huge pages of one size, in bytes. Pages that are reserved count as used if the kernel counts
// reservations, which it does since Linux 5.7.
type HugePages struct {
	Size  string // for example "2MB"
	Usage Optional
	Peak  Optional // the highest use so far; only on v1
}

// hugePages returns the use of huge pages by size. Without the controller hugetlb it returns nil.
func (t *Tree) hugePages(p string) (all []HugePages) {
	controller, limit := t.hugetlb()
	if controller == nil {
		return nil
	}
	current, peak := "current", "peak"
	if limit == "limit_in_bytes" {
		current, peak = "usage_in_bytes", "max_usage_in_bytes"
	}
	prefix := filepath.Join(t.Dir(*controller, p), "hugetlb.")
	files, _ := filepath.Glob(prefix + "*." + current) // Glob fails only for a malformed pattern
	for _, file := range files {
		size := strings.TrimSuffix(strings.TrimPrefix(file, prefix), "."+current)
		if strings.HasSuffix(size, ".rsvd") {
			continue
		}
		h := HugePages{Size: size, Usage: readOptional(prefix + size + ".rsvd." + current), Peak: readOptional(prefix + size + ".rsvd." + peak)}
		if !h.Usage.Valid {
			h.Usage, h.Peak = readOptional(file), readOptional(prefix+size+"."+peak)
		}
		all = append(all, h)
	}
	return all
}

// EnableHugetlb enables the hugetlb controller in the parents of a cgroup, on hosts where the
// OCI runtime does not do that.
func (t *Tree) EnableHugetlb(p string) error {
	if !t.HybridHugetlb() {
		return nil
	}
	dir := t.hierarchies[hybridKey]
	for name := range strings.SplitSeq(strings.TrimPrefix(p, "/"), "/") {
		control := filepath.Join(dir, "cgroup.subtree_control")
		if !fileHasWord(control, "hugetlb") {
			if err := write(control, "+hugetlb"); err != nil {
				return fmt.Errorf("hugepage limits of cgroup %s: %w", p, err)
			}
		}
		dir = filepath.Join(dir, name)
	}
	return nil
}

// SetHugetlb limits the huge pages of a cgroup that are in use or reserved, in bytes by page
// size ("2MB"). It returns fs.ErrNotExist if the kernel cannot limit them.
func (t *Tree) SetHugetlb(p string, limits map[string]uint64) error {
	if len(limits) == 0 {
		return nil
	}
	controller, suffix := t.hugetlb()
	if controller == nil {
		return fmt.Errorf("hugepage limits of cgroup %s: the host has no hugetlb controller: %w", p, fs.ErrNotExist)
	}
	if err := t.EnableHugetlb(p); err != nil {
		return err
	}
	dir := t.Dir(*controller, p)
	for size, limit := range limits {
		value := strconv.FormatUint(limit, 10)
		if err := write(filepath.Join(dir, "hugetlb."+size+"."+suffix), value); err != nil {
			return fmt.Errorf("hugepage limits of cgroup %s: %w", p, err)
		}
		// The kernel limits reservations since Linux 5.7.
		err := write(filepath.Join(dir, "hugetlb."+size+".rsvd."+suffix), value)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("hugepage limits of cgroup %s: %w", p, err)
		}
	}
	return nil
}
