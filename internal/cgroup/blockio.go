package cgroup

import (
	"os"
	"path/filepath"
)

// WeighsBlockIO says whether cgroups like this one can have a weight of block
// I/O. That depends on the I/O schedulers of the kernel; the root never has one.
func (t *Tree) WeighsBlockIO(p string) bool {
	controller, files := "blkio", []string{"blkio.weight", "blkio.bfq.weight"}
	if t.v2 {
		controller, files = "", []string{"io.weight", "io.bfq.weight"}
	}
	dir := t.Dir(controller, p)
	for _, file := range files {
		if _, err := os.Stat(filepath.Join(dir, file)); dir != "" && err == nil {
			return true
		}
	}
	return false
}
