package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	for name, write := range map[string]func(string, []byte, os.FileMode) error{"Write": Write, "WriteSync": WriteSync} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "state")
			for _, content := range []string{"old content", "new"} {
				if err := write(path, []byte(content), 0o640); err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(path)
				if err != nil || string(got) != content {
					t.Errorf("file has %q, %v; want %q", got, err, content)
				}
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
				t.Errorf("mode of %v, %v; want 0640", info, err)
			}
			checkEntries(t, dir, "state")
		})
	}
}

// TestFailedWrite checks that a failed write leaves no temporary file.
func TestFailedWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if err := os.MkdirAll(filepath.Join(path, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("content"), 0o600); err == nil {
		t.Error("Write has replaced a directory")
	}
	checkEntries(t, dir, "state")
	if err := WriteSync(filepath.Join(dir, "missing", "state"), nil, 0o600); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

// TestRemoveTemporary checks that only the temporary files of this package are removed.
func TestRemoveTemporary(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"state", ".state.criserver-17"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := createTemporary(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTemporary(dir); err != nil {
		t.Error(err)
	}
	checkEntries(t, dir, "state")
	other := filepath.Join(dir, ".state.tmp")
	if err := os.Rename(filepath.Join(dir, "state"), other); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(RemoveTemporary(dir), RemoveTemporary(filepath.Join(dir, "missing"))); err != nil {
		t.Error(err)
	}
	checkEntries(t, dir, ".state.tmp")
}

func checkEntries(t *testing.T, dir, want string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != want {
		t.Errorf("directory has %v, want only %s", entries, want)
	}
}
