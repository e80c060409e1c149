package rootpath

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTooLong compares the rule with the kernel.
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
			t.Errorf("%s: %v, the kernel says %v", name, got, err)
		}
	}
}
