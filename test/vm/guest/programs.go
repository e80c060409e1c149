package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Tree returns the directory with the compiled files of the project for an architecture: the top directory itself for
// the architecture of this machine. Paths below it are the same for all architectures.
func Tree(top, arch string) string {
	if arch == runtime.GOARCH {
		return top
	}
	return filepath.Join(top, ".cache", "vm", arch, "tree")
}

// programs are the programs that `make build tools` makes without cgo.
var programs = []struct {
	module, out string // relative to the top directory and to bin
	flags       []string
	packages    []string
}{
	{".", "", []string{"-tags", "containers_image_openpgp,nri_no_wasm"}, []string{"./cmd/criserver", "./cmd/conmon"}},
	{"tools/cni", "cni", nil, []string{"tool"}},
	{"tools/crictl", "crictl", nil, []string{"sigs.k8s.io/cri-tools/cmd/crictl"}},
	{"test/critest", "ginkgo", nil, []string{"github.com/onsi/ginkgo/v2/ginkgo"}},
	{"test/images", "testimages", nil, []string{"./cmd/testimages"}},
}

// Programs builds the programs and the test images for an architecture in its Tree, and puts the Debian package there
// that `make deb` has built. For the architecture of this machine it does nothing: make has built them. There is no
// runc for a foreign architecture, because runc needs cgo; guests have the runc of Debian.
func Programs(ctx context.Context, top, arch string) error {
	if arch == runtime.GOARCH {
		return nil
	}
	top, err := filepath.Abs(top)
	if err != nil {
		return err
	}
	tree := Tree(top, arch)
	if err := os.MkdirAll(filepath.Join(tree, "bin", "cni"), 0o755); err != nil {
		return err
	}
	for _, p := range programs {
		args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(tree, "bin", p.out) + trailing(p.packages)}, p.flags...)
		cmd := exec.CommandContext(ctx, "go", append(args, p.packages...)...)
		cmd.Dir = filepath.Join(top, p.module)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %v for %s: %w\n%s", p.packages, arch, err, out)
		}
	}
	if err := packages(top, arch); err != nil {
		return err
	}
	return command(ctx, filepath.Join(top, "bin", "testimages"), "build", "-arch", arch, "-dir", filepath.Join(tree, ".cache", "images"))
}

// packages puts the Debian packages that `make deb` has built for an architecture into its Tree, and removes earlier
// ones. Without a package the test of the package fails and says so.
func packages(top, arch string) error {
	dir := filepath.Join(Tree(top, arch), "bin", "deb")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	built, err := filepath.Glob(filepath.Join(top, "bin", "deb", "*_"+arch+".deb"))
	if err != nil {
		return err
	}
	for _, path := range built {
		if err := link(path, filepath.Join(dir, filepath.Base(path))); err != nil {
			return err
		}
	}
	return nil
}

// trailing returns the slash that makes go build write several programs into a directory.
func trailing(packages []string) string {
	if len(packages) > 1 || packages[0] == "tool" {
		return "/"
	}
	return ""
}
