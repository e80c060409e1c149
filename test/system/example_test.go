package system

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// TestExampleOfVolumes runs the example of docs/mounts.md with crictl, with other host
// directories.
func TestExampleOfVolumes(t *testing.T) {
	n := newNode(t, "exvol", 220)
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/data", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/data", 0o777); err != nil { // independent of the umask
		t.Fatal(err)
	}
	for _, name := range []string{"pod.json", "container.json"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "docs", "examples", "volumes", name))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.NewReplacer("/srv/example", dir+"/data", "/var/log/pods", dir+"/logs").Replace(string(b))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	crictl := func(args ...string) string {
		t.Helper()
		global := []string{
			"--runtime-endpoint", "unix://" + n.Socket(), "--image-endpoint", "unix://" + n.Socket(),
			"--timeout", harness.Patience(10 * time.Second).String(), // the default of 2 s is too short for a slow machine
		}
		cmd := exec.CommandContext(t.Context(), filepath.Join(suite.bin, "crictl"), append(global, args...)...)
		cmd.Dir, cmd.Stderr = dir, os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("crictl %v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	crictl("pull", "docker.io/library/busybox:latest")
	crictl("pull", "docker.io/library/nginx:latest")
	pod := crictl("runp", "pod.json")
	c := crictl("create", pod, "container.json", "pod.json")
	crictl("start", c)
	for cmd, want := range map[string]string{
		"echo hi >/data/x && cat /data-ro/x":        "hi",
		"touch /data-ro/y 2>/dev/null || echo no":   "no",
		"touch /y 2>/dev/null || echo no":           "no",
		"test -s /html/index.html && echo page":     "page",
		"touch /html/y 2>/dev/null || echo no":      "no",
		"test -c /dev/fuse && echo device":          "device",
		"id -u":                                     "1000",
		"sed -n 's/^CapBnd:.//p' /proc/self/status": "0000000000000000",
	} {
		if got := n.Exec(t, c, "sh", "-c", cmd); got != want {
			t.Errorf("%s: got %q, want %q", cmd, got, want)
		}
	}
}
