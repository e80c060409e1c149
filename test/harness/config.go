package harness

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// config returns the content of the configuration file.
func (d *Daemon) config() string {
	return fmt.Sprintf(`root = %q
run_dir = %q
socket = %q
log_level = "debug"
cgroup_driver = %q
cgroup_parent = %q
default_runtime = %q
nri.socket = %q
%s
[cni]
conf_dirs = [%q]
bin_dirs = [%s]
default_bridge = false
%s

[image]
registries_conf = %q
registries_conf_dir = %q
policy = %q

[monitor]
path = %q

[checkpoint]
criu = %q

[runtimes.runc]
path = %q
`,
		d.path("root"), d.path("run"), d.Socket(), cmp.Or(d.CgroupDriver, os.Getenv(driverVariable), "auto"),
		cgroupName(cmp.Or(d.CgroupDriver, CgroupDriver()), d.CgroupParent), cmp.Or(d.Runtime, os.Getenv(runtimeVariable), "runc"), d.NRISocket(), d.Config,
		d.path("cni"), d.pluginDirs(), d.CNI,
		d.path("registries.conf"), d.path("registries.conf.d"), d.path("policy.json"),
		filepath.Join(d.Bin, "conmon"), cmp.Or(d.CRIU, builtCRIU(d.Bin)), d.runc())
}

// builtCRIU returns the path of the criu of "make tools" if it runs on this machine, and otherwise "", for the criu of
// the host. A guest can lack the libraries of the built one.
func builtCRIU(bin string) string {
	path := filepath.Join(bin, "criu")
	if exec.Command(path, "--version").Run() != nil {
		return ""
	}
	return path
}

// FindCRIU returns the path of the criu that a daemon with these programs uses, or an error if no
// criu works.
func FindCRIU(bin string) (string, error) {
	path := builtCRIU(bin)
	if path == "" {
		var err error
		if path, err = exec.LookPath("criu"); err != nil {
			return "", fmt.Errorf("neither %s nor a criu in the PATH runs: %w", filepath.Join(bin, "criu"), err)
		}
	}
	if out, err := exec.Command(path, "check").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s does not work on this kernel: %w: %s", path, err, out)
	}
	return path, nil
}

// runc returns the path of the runc under test: the runc in Bin, or the runc of the host if Bin has none, as in
// guests of another architecture.
func (d *Daemon) runc() string {
	built := filepath.Join(d.Bin, "runc")
	if _, err := os.Stat(built); err == nil {
		return built
	}
	if path, err := exec.LookPath("runc"); err == nil {
		return path
	}
	return built
}

// pluginDirs returns the value of cni.bin_dirs.
func (d *Daemon) pluginDirs() string {
	var quoted []string
	for _, dir := range append(slices.Clone(d.PluginDirs), filepath.Join(d.Bin, "cni")) {
		quoted = append(quoted, fmt.Sprintf("%q", dir))
	}
	return strings.Join(quoted, ", ")
}
