package cgroup

import (
	"os"
	"path"
	"path/filepath"
)

// WeighsBlockIO reports whether cgroups like p can have a weight of block I/O.
// That depends on the I/O schedulers of the kernel. The root never has a weight.
//
// The cgroup p may not exist yet, as systemd makes the slice of a pod only for
// the first container. On v2 the cgroup may also lack the io controller, which
// the OCI runtime will enable. Then other cgroups show what the kernel can do.
func (t *Tree) WeighsBlockIO(p string) bool {
	controller, sign, weights := "blkio", "cgroup.procs", []string{"blkio.weight", "blkio.bfq.weight"}
	if t.v2 {
		controller, sign, weights = "", "io.max", []string{"io.weight", "io.bfq.weight"}
	}
	root := t.Dir(controller, "/")
	if root == "" {
		return false
	}
	var dirs []string
	for q := p; q != "/" && q != "."; q = path.Dir(q) {
		dirs = append(dirs, filepath.Join(root, q))
	}
	others, _ := filepath.Glob(filepath.Join(root, "*"))
	for _, dir := range append(dirs, others...) {
		if hasFile(dir, sign) {
			return hasFile(dir, weights...)
		}
	}
	return false
}

func hasFile(dir string, names ...string) bool {
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}
