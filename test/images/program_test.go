package images

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// TestBuildProgram checks the image of a program, and that another program replaces it.
func TestBuildProgram(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(t.TempDir(), "tool")
	digests := map[string]bool{}
	for _, content := range []string{"first", "second", "second"} {
		if err := os.WriteFile(program, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := BuildProgram(t.Context(), dir, "registry.test/tool:1", program); err != nil {
			t.Fatal(err)
		}
		h, err := Handler(dir)
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(h)
		image := pull(t, server.Listener.Addr().String(), "registry.test/tool:1")
		if err := validate.Image(image); err != nil {
			t.Error(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if entry := config.Config.Entrypoint; len(entry) != 1 || entry[0] != "/tool" {
			t.Errorf("entry point: %q", entry)
		}
		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests[digest.String()] = true
		server.Close()
	}
	if len(digests) != 2 {
		t.Errorf("digests of two programs: %v", digests)
	}
}
