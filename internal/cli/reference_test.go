package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestReference checks that docs/commands.md is up to date.
func TestReference(t *testing.T) {
	got, err := os.ReadFile(filepath.Join("..", "..", "docs", "commands.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, Reference(NewRootCommand())) {
		t.Error("docs/commands.md is not up to date; run make docs")
	}
}
