package images

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"golang.org/x/sys/unix"
)

//go:embed *.go
var sources embed.FS

// refName is the standard annotation of an OCI image layout for the name of an image.
const refName = "org.opencontainers.image.ref.name"

// arch is the architecture of the images. Only BuildFor changes it.
var arch = runtime.GOARCH

// BuildFor is Build for an architecture other than the architecture of this program. No other function of this package
// may run at the same time.
func BuildFor(ctx context.Context, target, dir string, withHeavy bool) error {
	arch = target
	defer func() { arch = runtime.GOARCH }()
	return Build(ctx, dir, withHeavy)
}

// Build builds the test images in dir, as OCI image layouts, unless dir has images that were built from the same
// sources. The heavy image takes about half a minute and 300 MB, and is built only on request.
func Build(ctx context.Context, dir string, withHeavy bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()

	sets := map[string][]recipe{"base": catalog()}
	if withHeavy {
		sets["heavy"] = []recipe{{[]string{heavyName}, heavy}}
	}
	for name, recipes := range sets {
		if err := buildSet(ctx, filepath.Join(dir, name), recipes); err != nil {
			return fmt.Errorf("build %s images: %w", name, err)
		}
	}
	return nil
}

func buildSet(ctx context.Context, dir string, recipes []recipe) error {
	want, err := stamp()
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(filepath.Join(dir, "stamp")); err == nil && string(have) == want {
		return nil
	}
	scratch, err := os.MkdirTemp(filepath.Dir(dir), "build")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	p, err := makeParts(ctx, scratch)
	if err != nil {
		return err
	}
	made := filepath.Join(scratch, "layout")
	if err := writeLayout(made, p, recipes); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(made, "stamp"), []byte(want), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(made, dir)
}

func writeLayout(dir string, p *parts, recipes []recipe) error {
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	for _, r := range recipes {
		made, err := r.make(p)
		if err != nil {
			return fmt.Errorf("make %s: %w", r.names[0], err)
		}
		for _, name := range r.names {
			if err := appendTo(path, made, name); err != nil {
				return fmt.Errorf("write %s: %w", name, err)
			}
		}
	}
	return nil
}

func appendTo(path layout.Path, made artifact, name string) error {
	opt := layout.WithAnnotations(map[string]string{refName: name})
	switch made := made.(type) {
	case v1.Image:
		return path.AppendImage(made, opt)
	case v1.ImageIndex:
		return path.AppendIndex(made, opt)
	}
	return fmt.Errorf("neither an image nor an index: %T", made)
}

// stamp returns a digest of everything that the images are built from, except the Debian packages.
func stamp() (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), arch)
	for _, tree := range []embed.FS{sources, guest} {
		err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			body, err := tree.ReadFile(path)
			fmt.Fprintf(sum, "%s %d\n%s", path, len(body), body)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
