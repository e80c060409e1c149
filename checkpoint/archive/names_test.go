package archive

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestNames checks which names an archive can have.
func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		SpecFile: true, ImagePath("core-1.img"): true, ImagePath(strings.Repeat("a", maxName)): true,
		"": false, "other": false, "../spec.dump": false, "/spec.dump": false, "./spec.dump": false,
		"checkpoint/": false, "checkpoint/../a.img": false, "checkpoint/a/b.img": false, "checkpoint/.img": false,
		"checkpoint/a\nb": false, ImagePath(strings.Repeat("a", maxName+1)): false,
	} {
		if err := checkName(name); (err == nil) != want || err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}
