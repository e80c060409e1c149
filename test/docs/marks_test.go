package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// marks lists the marks of the languages that contain commands or configuration of the daemon.
var marks = map[string][]string{
	"sh":      {"run", "guest", "check"},
	"console": {"run", "fails", "check"},
	"toml":    {"criserver", "registries"},
}

// unmarked lists the languages without marks. Files in json and yaml must be complete, the others are not examined.
var unmarked = []string{"json", "yaml", "go", "text", "log", "usage"}

// hidden matches a line of a block without commands that looks like a command.
var hidden = regexp.MustCompile(`^(\$ |# )?(criserver|crictl|kubectl|systemctl|journalctl|make|nft|ip|docker|go) [a-z-]`)

// TestMarks checks that each block says how the tests treat it.
func TestMarks(t *testing.T) {
	for _, p := range pages(t) {
		for _, line := range p.indented {
			t.Errorf("%s:%d: got a block without a fence, want a fence with a language and a mark (docs/testing.md)", p.name, line)
		}
		for _, b := range p.blocks {
			b.checkMark(t)
		}
	}
}

func (b block) checkMark(t *testing.T) {
	known := marks[b.lang]
	switch {
	case known == nil && !slices.Contains(unmarked, b.lang):
		t.Errorf("%s: got the language %q, want sh, console, toml or one of %q", b, b.lang, unmarked)
	case known == nil && b.mark != "":
		t.Errorf("%s: got the mark %q, want no mark after %q", b, b.mark, b.lang)
	case known != nil && !slices.Contains(known, b.mark):
		t.Errorf("%s: got the mark %q after %q, want one of %q", b, b.mark, b.lang, known)
	case b.mark == "check" && len(b.rest) < 10:
		t.Errorf("%s: got no reason after %q, want the reason why the tests do not run the block", b, "check:")
	case b.mark == "guest" && !runInGuest(t, b.section):
		t.Errorf("%s: got the mark \"guest\", want a section that a test in test/systemd runs", b)
	case b.mark == "guest" && b.page != "docs/install.md":
		t.Errorf("%s: got the mark \"guest\", want it only on docs/install.md", b)
	}
	if b.lang != "text" && b.lang != "log" {
		return
	}
	for line := range strings.Lines(b.text) {
		if hidden.MatchString(line) {
			t.Errorf("%s: got the command %q in a block of the language %s, want sh or console", b, strings.TrimSpace(line), b.lang)
		}
	}
}

// runInGuest reports whether a test of test/systemd names a section of docs/install.md.
func runInGuest(t *testing.T, section string) bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(top, "test", "systemd", "*_test.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("tests in test/systemd: got %d, %v", len(names), err)
	}
	for _, name := range names {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(source), `(t, "`+section+`")`) {
			return true
		}
	}
	return false
}
