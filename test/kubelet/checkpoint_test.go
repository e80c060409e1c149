package kubelet

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// checkCheckpoint checks the endpoint /checkpoint of the kubelet: the archive that it returns can be displayed, and the
// container runs on. On a host without a usable CRIU the kubelet must answer that the runtime has no checkpoints.
func checkCheckpoint(t *testing.T, n *node) {
	c := container{"checkpoint", "count"}
	p := n.runPod(t, newPod(c.pod, sh(c.name, "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")))
	before := status(p, c.name)
	waitLines(t, n, c, 3)

	u := n.url("checkpoint", c, url.Values{"timeout": {"120"}})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := n.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := harness.FindCRIU(n.Bin); err != nil {
		if answer.StatusCode != http.StatusNotFound {
			t.Errorf("without CRIU (%v): got the status %s: %s, want 404", err, answer.Status, text)
		}
		return
	}
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("got the status %s: %s", answer.Status, text)
	}
	var archives struct{ Items []string }
	if err := json.Unmarshal(text, &archives); err != nil || len(archives.Items) != 1 {
		t.Fatalf("got %s, %v; want one archive", text, err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(n.Bin, "checkpointctl"), "show", archives.Items[0]).CombinedOutput()
	if err != nil || !strings.Contains(string(out), c.name) {
		t.Errorf("checkpointctl show: %v: %s", err, out)
	}

	lines := strings.Count(n.logs(t, c, nil), "\n")
	waitLines(t, n, c, lines+3)
	after, err := n.pod(t.Context(), c.pod)
	if err != nil || after == nil {
		t.Fatalf("get the pod: %v, %v", after, err)
	}
	if s := status(after, c.name); s.RestartCount != before.RestartCount || s.ContainerID != before.ContainerID {
		t.Errorf("the container was restarted: %v, before %v", s, before)
	}
}

// waitLines waits until the log of a container has a number of lines.
func waitLines(t *testing.T, n *node, c container, count int) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		if got := strings.Count(n.logs(t, c, nil), "\n"); got < count {
			return fmt.Errorf("the log of %s has %d lines, want %d", c.name, got, count)
		}
		return nil
	})
}
