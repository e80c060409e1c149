package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// sysctls are the sysctls of the whole machine that a kubelet sets when it starts.
var sysctls = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

func readSysctls() (map[string]string, error) {
	values := map[string]string{}
	for _, name := range sysctls {
		b, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if err != nil {
			return nil, err
		}
		values[name] = strings.TrimSpace(string(b))
	}
	return values, nil
}

// withSysctlCopies returns the command line that runs args in a mount namespace in
// which files of dir are mounted over the sysctls, so that the values of the machine
// cannot change, even if a process is killed. Other mounts are still shared with the
// daemon. The daemon does not see the mounts over /proc, because the kernel refuses
// proc file systems in user namespaces if the visible one is covered in part.
func withSysctlCopies(dir string, args ...string) ([]string, error) {
	values, err := readSysctls()
	if err != nil {
		return nil, err
	}
	script := "mount --make-rprivate /proc\n"
	for name, value := range values {
		file := filepath.Join(dir, strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return nil, err
		}
		script += fmt.Sprintf("mount --bind '%s' '/proc/sys/%s'\n", file, name)
	}
	script += `exec "$@"`
	return append([]string{"unshare", "--mount", "--propagation", "unchanged", "/bin/sh", "-ec", script, "sh"}, args...), nil
}
