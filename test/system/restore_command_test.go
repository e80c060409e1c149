package system

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// restoredPod is the output of "criserver restore -o json".
type restoredPod struct {
	PodSandboxID   string `json:"podSandboxId"`
	Namespace, Pod string
	Containers     []struct{ ID, Name, State string }
	exit           int
	stdout, stderr string
}

// restoreCommand runs the command restore.
func (n *node) restoreCommand(t *testing.T, args ...string) (r restoredPod) {
	t.Helper()
	r.exit, r.stdout, r.stderr = n.command(t, append([]string{"restore", "-o", "json"}, args...)...)
	if r.exit == 0 {
		if err := json.Unmarshal([]byte(r.stdout), &r); err != nil || len(r.Containers) != 1 {
			t.Fatalf("restore %q: %v: %s", args, err, r.stdout)
		}
	}
	return r
}

// firstLine waits for a line of a log and returns the number in the line.
func firstLine(t *testing.T, path string, line int) int {
	t.Helper()
	var lines []string
	waitFor(t, "the log "+path, func() bool {
		b, err := os.ReadFile(path)
		lines = strings.Split(string(b), "\n")
		return err == nil && len(lines) > line+3 // the last one can be incomplete
	})
	_, text, _ := strings.Cut(lines[line], " F ")
	number, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("line %d of %s: %v", line, path, err)
	}
	return number
}

// TestRestoreCommand writes a checkpoint of a pod with the command, removes the pod, and restores the pod with the
// command. Nothing but the directory is given.
func TestRestoreCommand(t *testing.T) {
	needCRIU(t)
	n := makeNode("rstcmd")
	n.Network = n.Bridge("csrstcmd", "10.221.0.0/16", "fd00:221::/64")
	n.start(t)
	config := podConfig("rstcmd")
	config.Annotations = map[string]string{"note": "kept"}
	config.Labels["io.kubernetes.pod.uid"] = config.GetMetadata().GetUid()
	p := n.RunPod(t, config)
	c := containerConfig(p, "count", busybox, "sh", "-c", "echo changed >/etc/changed; "+counter)
	c.Envs = []*cri.KeyValue{{Key: "A", Value: []byte("value")}}
	n.RunContainer(t, p, c)
	log := filepath.Join(config.GetLogDirectory(), "count.log")
	firstLine(t, log, 3)
	name := config.GetMetadata().GetNamespace() + "/" + config.GetMetadata().GetName()
	dir := filepath.Join(t.TempDir(), "pod")
	written := len(logLines(t, p, "count"))
	if code, _, stderr := n.command(t, "checkpoint", name, "-o", dir); code != 0 {
		t.Fatalf("checkpoint: exit code %d, %s", code, stderr)
	}
	if r := n.restoreCommand(t, dir); r.exit != 1 || !strings.Contains(r.stderr, "exists") {
		t.Errorf("the pod exists: exit code %d, %s", r.exit, r.stderr)
	}
	n.RemovePod(t, p.ID)
	before := len(logLines(t, p, "count"))

	r := n.restoreCommand(t, dir)
	if r.exit != 0 || r.Namespace+"/"+r.Pod != name || r.Containers[0].Name != "count" || r.Containers[0].State != "running" {
		t.Fatalf("restore: exit code %d, %s%s", r.exit, r.stdout, r.stderr)
	}
	if got := firstLine(t, log, before); got <= written || got > before+1 {
		t.Errorf("the counter continues at %d, want more than %d and at most %d", got, written, before+1)
	}
	if got := n.Exec(t, r.Containers[0].ID, "sh", "-c", "cat /etc/changed; echo $A"); got != "changed\nvalue" {
		t.Errorf("file and variable: got %q", got)
	}
	st, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: r.PodSandboxID})
	if err != nil || st.GetStatus().GetAnnotations()["note"] != "kept" || st.GetStatus().GetMetadata().GetUid() != config.GetMetadata().GetUid() {
		t.Errorf("status: got %v, %v", st.GetStatus(), err)
	}

	// The second pod runs next to the first one, with a separate log.
	second := n.restoreCommand(t, dir, "--name", "rstcmd-copy", "--uid", "u2")
	if second.exit != 0 {
		t.Fatalf("restore with another name: exit code %d, %s", second.exit, second.stderr)
	}
	copied := filepath.Join(filepath.Dir(config.GetLogDirectory()), config.GetMetadata().GetNamespace()+"_rstcmd-copy_u2", "count.log")
	if got := firstLine(t, copied, 0); got <= written {
		t.Errorf("the counter of the second pod continues at %d, want more than %d", got, written)
	}
	st, err = n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: second.PodSandboxID})
	if err != nil || st.GetStatus().GetLabels()["io.kubernetes.pod.uid"] != "u2" {
		t.Errorf("labels of the second pod: got %v, %v", st.GetStatus().GetLabels(), err)
	}
	t.Run("archive", func(t *testing.T) { n.checkRestoreArchive(t, second) })
	n.RemovePod(t, r.PodSandboxID)
	n.RemovePod(t, second.PodSandboxID)
}

// checkRestoreArchive restores a container in a pod in which the original runs.
func (n *node) checkRestoreArchive(t *testing.T, p restoredPod) {
	archive := filepath.Join(t.TempDir(), "a.tar")
	if code, _, stderr := n.command(t, "checkpoint", p.Containers[0].ID, "-o", archive); code != 0 {
		t.Fatalf("checkpoint: exit code %d, %s", code, stderr)
	}
	args := []string{archive, "--pod", p.PodSandboxID[:12]}
	if r := n.restoreCommand(t, args...); r.exit != 1 || !strings.Contains(r.stderr, "--name") {
		t.Errorf("the name is in use: exit code %d, %s", r.exit, r.stderr)
	}
	args = append(args, "--name", "other")
	if r := n.restoreCommand(t, args...); r.exit != 1 || !strings.Contains(r.stderr, "checkpoint.restore_from_archives") {
		t.Errorf("archives are not allowed: exit code %d, %s", r.exit, r.stderr)
	}
	n.writeFile(t, "config.toml.d/50-checkpoint.toml", "[checkpoint]\nrestore_from_archives = true\n")
	if code, _, stderr := n.command(t, "reload"); code != 0 {
		t.Fatalf("reload: %s", stderr)
	}
	r := n.restoreCommand(t, append(args, "--no-start")...)
	if r.exit != 0 || r.PodSandboxID != p.PodSandboxID || r.Containers[0].State != "created" {
		t.Fatalf("restore: exit code %d, %s%s", r.exit, r.stdout, r.stderr)
	}
	n.StartContainer(t, r.Containers[0].ID)
	st := n.ContainerStatus(t, r.Containers[0].ID)
	if filepath.Base(st.GetLogPath()) != "0.log" || st.GetMetadata().GetName() != "other" {
		t.Errorf("status: %v", st)
	}
	if got := firstLine(t, st.GetLogPath(), 0); got < 3 {
		t.Errorf("the counter begins at %d", got)
	}
}
