package system

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestImageCommands checks the commands for images and layers with a registry that wants a password.
func TestImageCommands(t *testing.T) {
	n := newNode(t, "imagecmds", 222)
	// The first name that can be a short name creates a lock file, which remains.
	if code, _, stderr := n.command(t, "layers", "system/imagecmds/none"); code != 1 || !strings.Contains(stderr, "no image and no container") {
		t.Errorf("layers of nothing: exit code %d, %s", code, stderr)
	}
	n.takeBaseline(t)
	reg := newRegistry(t)
	n.trust(t, reg)
	base := n.busyboxLayers(t)
	own := layerOf(t, directory("data", 0, 0o755), textFile("data/old", "old"), textFile("data/gone", "gone"))
	reg.push(t, "app:1", imageOf(t, v1.Config{Cmd: []string{"sleep", "1000"}, User: "0"}, append(base, own)...))
	reg.push(t, "other:1", small(t, "other"))
	reg.set(func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user == "bob" && password == "s3cret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	app, other := reg.host+"/app:1", reg.host+"/other:1"
	code, _, stderr := n.command(t, "pull", app, "--creds", "bob:wr0ng")
	if code != 1 || strings.Contains(stderr, "wr0ng") {
		t.Errorf("pull with a wrong password: exit code %d, %s", code, stderr)
	}
	code, stdout, stderr := n.command(t, "pull", app, "--creds", "bob:s3cret")
	if code != 0 || !strings.HasPrefix(stdout, "sha256:") || strings.Contains(stderr, "s3cret") {
		t.Fatalf("pull: exit code %d, %s%s", code, stdout, stderr)
	}
	auth := n.writeFile(t, "auth.json", fmt.Sprintf(`{"auths":{%q:{"auth":"Ym9iOnMzY3JldA=="}}}`, reg.host))
	if code, _, stderr := n.command(t, "pull", other, "--authfile", auth); code != 0 {
		t.Fatalf("pull with an auth file: exit code %d, %s", code, stderr)
	}

	p := n.RunPod(t, podConfig("imagecmds"))
	id := n.RunContainer(t, p, containerConfig(p, "c", app, "sh", "-c", "echo new >/data/new; echo more >>/data/old; rm /data/gone; exec sleep 1000"))
	var layers struct {
		Mount struct {
			Mounted bool
			Lower   []struct{ DiffID string }
			Upper   string
		}
		Changes []struct{ Kind, Path string }
		Summary struct{ Incomplete bool }
	}
	var changes []string
	waitFor(t, "the container has changed its files", func() bool {
		code, stdout, stderr := n.command(t, "layers", "system/imagecmds/c", "-o", "json")
		if err := json.Unmarshal([]byte(stdout), &layers); code != 0 || err != nil {
			t.Fatalf("layers of the container: exit code %d, %v, %s", code, err, stderr)
		}
		changes = nil
		for _, c := range layers.Changes {
			if strings.HasPrefix(c.Path, "/data/") {
				changes = append(changes, strings.TrimPrefix(c.Kind, "CHANGE_KIND_")+" "+c.Path)
			}
		}
		return len(changes) >= 3
	})
	if got, want := strings.Join(changes, ", "), "REMOVED /data/gone, ADDED /data/new, CHANGED /data/old"; got != want {
		t.Errorf("changes: got %s, want %s", got, want)
	}
	if !layers.Mount.Mounted || len(layers.Mount.Lower) < len(base)+1 || layers.Summary.Incomplete {
		t.Errorf("mount: got %+v", layers.Mount)
	}
	if b, err := os.ReadFile(filepath.Join(layers.Mount.Upper, "data/new")); string(b) != "new\n" {
		t.Errorf("file in the upper directory: got %q, %v", b, err)
	}
	_, stdout, _ = n.command(t, "layers", app)
	if !strings.Contains(stdout, "step 0") || !strings.Contains(stdout, id[:13]) {
		t.Errorf("layers of the image: got\n%s", stdout)
	}
	_, stdout, _ = n.command(t, "images")
	if !strings.Contains(stdout, app) || !strings.Contains(stdout, other) {
		t.Errorf("images: got\n%s", stdout)
	}
	if code, _, stderr := n.command(t, "rmi", app); code != 1 || !strings.Contains(stderr, "uses the image") {
		t.Errorf("remove an image in use: exit code %d, %s", code, stderr)
	}
	if _, stdout, _ := n.command(t, "prune", "--all"); strings.Contains(stdout, "removed") || !strings.Contains(stdout, "kept") {
		t.Errorf("prune of young images: got\n%s", stdout)
	}
	if _, stdout, _ := n.command(t, "prune", "--all", "--min-age", "0s"); !strings.Contains(stdout, "removed "+other) || strings.Contains(stdout, app) {
		t.Errorf("prune: got\n%s", stdout)
	}
	n.RemovePod(t, p.ID)
	if code, stdout, stderr := n.command(t, "rmi", app); code != 0 || !strings.Contains(stdout, "removed "+app) {
		t.Errorf("remove an unused image: exit code %d, %s%s", code, stdout, stderr)
	}
}
