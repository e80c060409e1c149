package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// guide returns the block of commands in a section of docs/install.md that has the mark "guest".
func guide(t *testing.T, section string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(top, "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(page), "\n## "+section+"\n")
	if !ok {
		t.Fatalf("docs/install.md has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	const begin = "\n```sh guest\n"
	_, block, ok := strings.Cut(text, begin)
	block, rest, closed := strings.Cut(block, "\n```\n")
	if !ok || !closed || strings.Contains(rest, begin) {
		t.Fatalf("section %q of docs/install.md must have exactly one block of commands for guests", section)
	}
	return block + "\n"
}

// follow runs the block of commands of a section, and fails if a command fails.
func follow(t *testing.T, section string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euo", "pipefail", "-x", "-c", guide(t, section))
	cmd.Dir = top
	var out, trace strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &trace
	if err := cmd.Run(); err != nil {
		t.Fatalf("section %q of docs/install.md: %v\n%s%s\n%s", section, err, trace.String(), out.String(), journalTail())
	}
	return out.String()
}

// packages returns the names of the packages that docs/install.md installs.
func packages(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, word := range strings.Fields(guide(t, "What the host needs"))[2:] {
		if !strings.HasPrefix(word, "-") {
			names = append(names, word)
		}
	}
	return names
}
