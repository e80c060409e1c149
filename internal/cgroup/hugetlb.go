package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// hugetlb returns the key of the hierarchy that limits hugepages, nil for none,
// and the name that the file of a limit ends in there.
func (t *Tree) hugetlb() (controller *string, suffix string) {
	unified, v1, beside := "", "hugetlb", hybrid
	switch {
	case t.v2:
		return &unified, "max"
	case t.hierarchies[v1] != "":
		return &v1, "limit_in_bytes"
	case t.HugetlbApart():
		return &beside, "max"
	}
	return nil, ""
}

// HugetlbApart says whether hugepages are limited on the unified hierarchy
// beside the v1 ones. OCI runtimes put containers there but set no limit.
func (t *Tree) HugetlbApart() bool {
	root := t.hierarchies[hybrid]
	return !t.v2 && root != "" && t.hierarchies["hugetlb"] == "" && hasWord(filepath.Join(root, "cgroup.controllers"), "hugetlb")
}

func hasWord(file, word string) bool {
	b, err := os.ReadFile(file)
	return err == nil && slices.Contains(strings.Fields(string(b)), word)
}

// hugetlbFiles lists the limits of hugepages that a cgroup has.
func (t *Tree) hugetlbFiles(p string) []string {
	controller, suffix := t.hugetlb()
	found, _ := filepath.Glob(filepath.Join(t.Dir(*controller, p), "hugetlb.*."+suffix))
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found
}

// EnableHugetlb makes the files of hugepage limits appear in a cgroup where the
// OCI runtime does not see to it.
func (t *Tree) EnableHugetlb(p string) error {
	if !t.HugetlbApart() {
		return nil
	}
	dir := t.hierarchies[hybrid]
	for name := range strings.SplitSeq(strings.TrimPrefix(p, "/"), "/") {
		control := filepath.Join(dir, "cgroup.subtree_control")
		if !hasWord(control, "hugetlb") {
			if err := write(control, "+hugetlb"); err != nil {
				return fmt.Errorf("hugepage limits of cgroup %s: %w", p, err)
			}
		}
		dir = filepath.Join(dir, name)
	}
	return nil
}

// SetHugetlb limits the bytes in hugepages of each size, in use and reserved, by
// the size's name ("2MB"). It fails with fs.ErrNotExist where they cannot be
// limited.
func (t *Tree) SetHugetlb(p string, limits map[string]uint64) error {
	if len(limits) == 0 {
		return nil
	}
	controller, suffix := t.hugetlb()
	if controller == nil {
		return fmt.Errorf("hugepage limits of cgroup %s: the hugetlb controller is missing: %w", p, fs.ErrNotExist)
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
		// Reservations are counted since Linux 5.7.
		err := write(filepath.Join(dir, "hugetlb."+size+".rsvd."+suffix), value)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("hugepage limits of cgroup %s: %w", p, err)
		}
	}
	return nil
}
