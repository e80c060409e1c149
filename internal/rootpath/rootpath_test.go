package rootpath

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadFileStaysBelowRoot(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "root")
	for _, d := range []string{"etc", "a"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(p, s string) {
		if err := os.WriteFile(p, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(base, "secret"), "host")
	write(filepath.Join(root, "secret"), "inside")
	for link, to := range map[string]string{"up": "../../secret", "abs": "/secret", "a/deep": "../../../../secret"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"up", "abs", "a/deep", "../secret", "/../../secret"} {
		b, err := ReadFile(root, p, 100)
		if err != nil || string(b) != "inside" {
			t.Errorf("%s: read %q, %v; want the file below the root", p, b, err)
		}
	}
	if _, err := ReadFile(root, "/secret", 3); !errors.Is(err, ErrTooLarge) {
		t.Errorf("file above the limit: %v, want ErrTooLarge", err)
	}
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(root, "fifo", 3); err == nil {
		t.Error("ReadFile has read a FIFO")
	}
}

func TestMkdirAllStaysBelowRoot(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "root")
	if err := os.MkdirAll(filepath.Join(root, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/real", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../out", filepath.Join(root, "evil")); err != nil {
		t.Fatal(err)
	}
	f, err := MkdirAll(root, "/link/x/y", 0o755)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := os.Stat(filepath.Join(root, "real/x/y")); err != nil {
		t.Error(err)
	}
	if f, err := MkdirAll(root, "evil/x", 0o755); err == nil {
		f.Close()
		t.Error("MkdirAll has followed a link that leaves the root")
	}
	if _, err := os.Stat(filepath.Join(base, "out")); err == nil {
		t.Error("MkdirAll has created a directory outside of the root")
	}
}

// TestTooLong compares TooLong with the kernel.
func TestTooLong(t *testing.T) {
	dir := t.TempDir() + "/"
	deep := strings.Repeat("a/", 2048)
	for name, path := range map[string]string{
		"short":               dir + "x",
		"a name of 255 bytes": dir + strings.Repeat("a", 255),
		"a name of 256 bytes": dir + strings.Repeat("a", 256),
		"4095 bytes":          (dir + deep)[:4095],
		"4096 bytes":          (dir + deep)[:4096],
	} {
		_, err := os.Lstat(path)
		if got := TooLong(path); got != errors.Is(err, unix.ENAMETOOLONG) {
			t.Errorf("%s: TooLong returns %v, and lstat returns %v", name, got, err)
		}
	}
}
