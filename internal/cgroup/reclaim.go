package cgroup

import (
	"path/filepath"
	"strconv"
)

// Reclaim has the kernel take memory from a cgroup until it uses no more than
// limit, and returns what it uses then. On v2, where a limit below the use would
// kill, that is asked for first; on v1 the kernel itself tries when the limit is
// set, and refuses it if that does not do, so there nothing is done here.
func (t *Tree) Reclaim(p string, limit uint64) (used uint64) {
	if !t.v2 {
		return readUint(filepath.Join(t.Dir("memory", p), "memory.usage_in_bytes"))
	}
	dir := t.Dir("", p)
	current := filepath.Join(dir, "memory.current")
	if used = readUint(current); used > limit {
		// Since Linux 5.19. It fails when less than asked for could be taken.
		_ = write(filepath.Join(dir, "memory.reclaim"), strconv.FormatUint(used-limit, 10))
		used = readUint(current)
	}
	return used
}
