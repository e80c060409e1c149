package docs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"go.yaml.in/yaml/v3"
)

// TestFiles checks the syntax of the files that the pages show, and lets the daemon validate its configuration.
func TestFiles(t *testing.T) {
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			var parsed any
			var err error
			switch b.lang {
			case "json":
				err = json.Unmarshal([]byte(b.text), &parsed)
			case "yaml":
				err = yaml.Unmarshal([]byte(b.text), &parsed)
			case "toml":
				if _, err = toml.Decode(b.text, &parsed); err == nil && b.mark == "criserver" && !testing.Short() {
					b.validate(t)
				}
			}
			if err != nil {
				t.Errorf("%s: got the error %v, want a complete file in the format %s", b, err, b.lang)
			}
		}
	}
}

// validate runs "criserver config validate" with a block as the configuration file.
func (b block) validate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "criserver.toml")
	if err := os.WriteFile(path, []byte(b.text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(top, "bin", "criserver"), "config", "validate", path).CombinedOutput(); err != nil {
		t.Errorf("%s: got the error %v, want a valid configuration:\n%s", b, err, strings.TrimSpace(string(out)))
	}
}
