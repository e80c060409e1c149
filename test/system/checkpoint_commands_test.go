package system

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestCheckpointCommands writes checkpoints with the command of criserver, and inspects them.
func TestCheckpointCommands(t *testing.T) {
	needCRIU(t)
	n := makeNode("ckptcli")
	n.Network = n.Bridge("csckptcli", "10.251.0.0/24")
	n.start(t)
	p := n.RunPod(t, podConfig("ckptcli"))
	id := n.run(t, p, "count", "sh", "-c", counter)
	dir := t.TempDir()
	archive, podDir := filepath.Join(dir, "a.tar"), filepath.Join(dir, "pod")
	name := p.Config.GetMetadata().GetNamespace() + "/" + p.Config.GetMetadata().GetName()
	criserver := func(args ...string) (string, error) {
		cmd := exec.Command(filepath.Join(suite.bin, "criserver"), args...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		return string(out) + stderr.String(), err
	}
	for _, args := range [][]string{{name + "/count", "-o", archive}, {id[:12], "--export", archive}, {name, "--export", podDir}} {
		out, err := criserver(append([]string{"checkpoint", "--socket", n.Socket()}, args...)...)
		if err != nil || out != args[2]+"\n" {
			t.Fatalf("checkpoint %v: %v: %s", args, err, out)
		}
	}
	n.counts(t, p, id, "count")
	for path, digest := range map[string]string{archive: "unknown", podDir: "verified"} {
		out, err := criserver("checkpoint", "inspect", path, "-o", "json", "--key", filepath.Join(n.Dir, "root", "checkpoint-key"))
		var got struct {
			Version    int
			Authentic  bool
			Pod        struct{ Name string }
			Containers []struct {
				Name, Digest string
				Parts        []struct {
					Name string
					Size int64
				}
			}
		}
		if err != nil || json.Unmarshal([]byte(out), &got) != nil || len(got.Containers) != 1 {
			t.Fatalf("inspect %s: %v: %s", path, err, out)
		}
		if c := got.Containers[0]; got.Version != 1 || !got.Authentic || got.Pod.Name != "ckptcli" || c.Name != "count" || c.Digest != digest ||
			c.Parts[0].Name != "memory" || c.Parts[0].Size == 0 {
			t.Errorf("inspect %s: got %s", path, out)
		}
	}
	if out, err := criserver("checkpoint", "--socket", n.Socket(), name, "--export", podDir); err == nil || !strings.Contains(out, "not empty") {
		t.Errorf("checkpoint to a directory with files: %v: %s", err, out)
	}
}

// TestCheckpointAfterStart writes checkpoints right after the start of containers.
func TestCheckpointAfterStart(t *testing.T) {
	needCRIU(t)
	n := makeNode("ckptstart")
	n.Network = n.Bridge("csckptstart", "10.251.1.0/24")
	n.start(t)
	p := n.RunPod(t, podConfig("ckptstart"))
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		id := n.run(t, p, name, "sleep", "1000")
		if err := n.checkpoint(t, id, filepath.Join(t.TempDir(), "a.tar"), time.Minute); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCheckpointOfServer writes a checkpoint of nginx, whose processes have epoll and event descriptors, a socket pair,
// a listening socket and shared memory.
func TestCheckpointOfServer(t *testing.T) {
	needCRIU(t)
	n := makeNode("ckptnginx")
	n.Network = n.Bridge("csckptnginx", "10.251.2.0/24")
	n.start(t)
	n.Pull(t, nginx)
	p := n.RunPod(t, podConfig("ckptnginx"))
	web := n.RunContainer(t, p, containerConfig(p, "web", nginx))
	client := n.run(t, p, "client", "sleep", "1000")
	fetch := "until wget -q -O - http://127.0.0.1/; do usleep 50000; done"
	before := n.Exec(t, client, "sh", "-c", fetch)
	err := n.checkpoint(t, web, filepath.Join(t.TempDir(), "a.tar"), time.Minute)
	if resource, capErr := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0); capErr != nil {
		t.Fatal(capErr)
	} else if resource == 1 && err != nil {
		t.Error(err)
	} else if resource == 0 && (status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "rlimit")) {
		// The workers of nginx have another user, and CRIU cannot read their limits.
		t.Errorf("without CAP_SYS_RESOURCE: got %v, want FailedPrecondition with the reason", err)
	}
	if after := n.Exec(t, client, "sh", "-c", fetch); before == "" || after != before {
		t.Errorf("the server answers %q, before the checkpoint %q", after, before)
	}
}
