package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestGeneratedCode checks that the generated code in the repository is up to date.
func TestGeneratedCode(t *testing.T) {
	root, dir, out := filepath.Join("..", ".."), filepath.Join("admin", "v1"), t.TempDir()
	if err := generate(root, dir, out); err != nil {
		t.Fatal(err)
	}
	generated, err := filepath.Glob(filepath.Join(out, dir, "*.go"))
	if err != nil || len(generated) == 0 {
		t.Fatalf("got generated files %v, %v", generated, err)
	}
	for _, path := range generated {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(root, dir, filepath.Base(path)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not up to date (%v); run make generate", filepath.Base(path), err)
		}
	}
}
