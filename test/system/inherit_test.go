package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestContainersDoNotInheritFromTheDaemon checks that containers do not depend on the
// umask and the limits with which the daemon was started.
func TestContainersDoNotInheritFromTheDaemon(t *testing.T) {
	n := makeNode("inherit")
	n.Network = n.Bridge("csinherit", "10.127.0.0/16")
	n.Command = fmt.Sprintf(`sh -c 'umask 077; ulimit -Sn 5000; exec %s --config "$HARNESS_DIR/config.toml"'`, filepath.Join(n.Bin, "criserver"))
	n.start(t)
	p := n.RunPod(t, podConfig("inherit"))
	config := containerConfig(p, "c", busybox, "sh", "-c", "umask >/tmp/umask; ulimit -Sn >/tmp/soft; ulimit -Hn >/tmp/hard; sleep 1000")
	config.WorkingDir = "/new/work"
	made := filepath.Join(t.TempDir(), "made")
	config.Mounts = append(config.Mounts,
		&cri.Mount{ContainerPath: "/made", HostPath: filepath.Join(made, "by")}, &cri.Mount{ContainerPath: "/tmp", HostPath: t.TempDir()})
	id := n.CreateContainer(t, p, config)
	n.StartContainer(t, id)
	waitFor(t, "the container to write", func() bool {
		b, err := os.ReadFile(filepath.Join(config.Mounts[1].HostPath, "hard"))
		return err == nil && len(b) > 0
	})

	hard := min(524288, hardLimitOfFiles(t))
	for command, want := range map[string]string{
		"cat /tmp/umask": "0022", "umask": "0022",
		"cat /tmp/soft": strconv.Itoa(min(1024, hard)), "ulimit -Sn": strconv.Itoa(min(1024, hard)),
		"cat /tmp/hard": strconv.Itoa(hard), "ulimit -Hn": strconv.Itoa(hard),
		"stat -c %a /etc/hosts /etc/hostname /etc/resolv.conf": "644\n644\n644",
		"stat -c %a /new /new/work /made":                      "755\n755\n755",
	} {
		if got := n.Exec(t, id, "sh", "-c", command); strings.TrimSpace(got) != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	logs := p.Config.GetLogDirectory()
	for path, want := range map[string]os.FileMode{
		made: 0o755, logs: 0o755, filepath.Join(logs, "c.log"): 0o640, n.Socket(): 0o660,
		filepath.Join(n.Dir, "run", "pods"): 0o711, filepath.Join(n.Dir, "run", "containers"): 0o711,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != want {
			t.Errorf("%s: %v, want %v", path, info.Mode(), want)
		}
	}
}

// hardLimitOfFiles returns the hard limit of open files of this process, which the daemon
// inherits.
func hardLimitOfFiles(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if n, err := strconv.Atoi(strings.Fields(rest)[1]); err == nil {
				return n
			}
		}
	}
	t.Fatalf("no limit of open files in %s", b)
	return 0
}
