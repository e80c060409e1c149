package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/layer"
)

// compareLayers checks that the layers of two images have the same files.
func compareLayers(tb testing.TB, a *bed, first Image, b *bed, second Image) {
	tb.Helper()
	equal(tb, "number of layers", len(second.Layers), len(first.Layers))
	for i := range first.Layers {
		x, _ := a.layers.Get(first.Layers[i].DiffID)
		y, _ := b.layers.Get(second.Layers[i].DiffID)
		same, err := layer.SameTree(tb.Context(), x.Dir(), y.Dir())
		if err != nil || !same {
			tb.Errorf("files of layer %d differ: %v", i, err)
		}
		equalList(tb, "implied directories", slices.Sorted(slices.Values(y.Implied)), slices.Sorted(slices.Values(x.Implied)))
		equal(tb, "opaque root", y.OpaqueRoot, x.OpaqueRoot)
		for _, name := range []string{"usr/ping", "usr/ping2", "usr", "opaque", "replaced"} {
			for _, attr := range []string{"security.capability", "user.note", "user.dir", "trusted.overlay.opaque"} {
				equal(tb, attr+" of "+name, xattr(y.Dir(), name, attr), xattr(x.Dir(), name, attr))
			}
		}
	}
}

func xattr(dir, name, attr string) string {
	value := make([]byte, 100)
	n, err := unix.Lgetxattr(filepath.Join(dir, name), attr, value)
	if err != nil {
		return ""
	}
	return string(value[:n])
}

// mountBoth checks that a container sees the same files in both images.
func mountBoth(tb testing.TB, a *bed, first Image, b *bed, second Image) {
	tb.Helper()
	x, _ := a.mount(tb, first)
	y, _ := b.mount(tb, second)
	for _, root := range []string{x, y} {
		equal(tb, "file of the hidden directory", exists(root, "opaque/lower"), false)
		equal(tb, "removed directory", exists(root, "gone"), false)
		equal(tb, "file of the implied directory", read(tb, root, "implied/upper"), "u")
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(root, "implied"), &st); err != nil || st.Uid != 9 || st.Mode&0o7777 != 0o750 {
			tb.Errorf("implied directory has owner %d and mode %o, %v", st.Uid, st.Mode, err)
		}
	}
	same, err := layer.SameTree(tb.Context(), x, y)
	if err != nil || !same {
		tb.Errorf("mounted files differ: %v", err)
	}
}

func exists(path ...string) bool {
	_, err := os.Lstat(filepath.Join(path...))
	return err == nil
}
