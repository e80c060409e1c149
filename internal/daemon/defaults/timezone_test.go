package defaults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckTimezone checks that only files with time zones are accepted, also behind a link.
func TestCheckTimezone(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"zone": "TZif2 and more", "text": "no zone", "short": "TZ"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("zone", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", filepath.Join(dir, "zone"), filepath.Join(dir, "link")} {
		if err := CheckTimezone(path); err != nil {
			t.Errorf("%q: got %v, want no error", path, err)
		}
	}
	for name, want := range map[string]string{"text": "tzfile(5)", "short": "EOF", "none": "no such file", ".": "not a regular file"} {
		path := filepath.Join(dir, name)
		if err := CheckTimezone(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: got %v, want an error with the path and %q", path, err, want)
		}
	}
}
