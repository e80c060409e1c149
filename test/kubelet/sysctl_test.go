package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// sysctls are those that a kubelet sets for the whole machine when it starts.
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

// veil returns the command line that runs args with files of dir in place of
// the sysctls: in a mount namespace that differs in this alone, so that nobody's
// death can leave the machine with other values than it had. Mounts below / are
// still shared with the daemon; /proc is not, as a container in a user namespace
// gets no proc file system where the one at hand is covered in part.
func veil(dir string, args ...string) ([]string, error) {
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
