package image

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Problem is a problem that Check has found.
type Problem struct {
	// Image is the broken image, or empty for a layer that no image has.
	Image ID
	Layer digest.Digest // the broken layer, or empty if the files of the image are broken
	Err   error
	// User describes the container that uses, or may use, the image or the layer. A repair changes
	// nothing if User is set.
	User string
	// Repaired reports whether the image or layer was deleted. It must be pulled again.
	Repaired bool
}

// Check verifies all images: manifest and config by their digests, and layers by the names, types,
// owners and sizes of their files. With repair, Check deletes broken images and broken layers. Images
// and layers that a container uses are reported and never deleted. Check returns only the error of the
// context. Images and layers that are removed during the check are not reported.
func (m *Manager) Check(ctx context.Context, repair bool) ([]Problem, error) {
	damaged := make(map[digest.Digest]error)
	for _, id := range m.layers.IDs() {
		if err := m.layers.Verify(ctx, id); err != nil && !errdefs.IsNotFound(err) {
			damaged[id] = err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	found := m.problems(damaged)
	if !repair {
		return found, nil
	}
	for i := range found {
		if err := m.repair(ctx, &found[i]); err != nil {
			found[i].Err = fmt.Errorf("%w; not repaired: %w", found[i].Err, err)
		}
	}
	return found, ctx.Err()
}

// problems returns the problems of images, and of layers that no image has.
func (m *Manager) problems(damaged map[digest.Digest]error) []Problem {
	var found []Problem
	x := m.index.Load()
	for id, b := range x.broken {
		found = append(found, Problem{Image: id, Err: fmt.Errorf("load image: %w", b.err), User: m.imageUser(id)})
	}
	for _, img := range x.all {
		if p, bad := m.checkCurrentImage(img, damaged); bad {
			// Without the image, the broken layer would stay for the container, and the next pull would use it.
			if p.User = m.imageUser(img.ID); p.User == "" && p.Layer != "" {
				p.User = m.layerUser(p.Layer)
			}
			found = append(found, p)
		}
	}
	for id, err := range damaged {
		if !x.usesLayer[id] && m.layers.Has(id) {
			found = append(found, Problem{Layer: id, Err: err, User: m.layerUser(id)})
		}
	}
	slices.SortFunc(found, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Image, b.Image), cmp.Compare(a.Layer, b.Layer))
	})
	return found
}

// checkCurrentImage is checkImage for an image that can change or disappear during the check.
func (m *Manager) checkCurrentImage(img *stored, damaged map[digest.Digest]error) (Problem, bool) {
	for img != nil {
		p, bad := m.checkImage(img, damaged)
		current := m.index.Load().byID[img.ID]
		if !bad || current == img {
			return p, bad
		}
		img = current
	}
	return Problem{}, false
}

// checkImage returns the first problem of an image.
func (m *Manager) checkImage(img *stored, damaged map[digest.Digest]error) (Problem, bool) {
	for _, l := range img.Layers {
		if err, bad := damaged[l.DiffID]; bad {
			return Problem{Image: img.ID, Layer: l.DiffID, Err: err}, true
		}
	}
	dir := m.imageDir(img.ID)
	for name, want := range map[string]digest.Digest{manifestFile: img.Manifest, configFile: img.ID} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = want.Validate()
		}
		if err == nil && want.Algorithm().FromBytes(b) != want {
			err = fmt.Errorf("%s has changed: %w", name, errdefs.ErrDataLoss)
		}
		if err != nil {
			return Problem{Image: img.ID, Err: err}, true
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, coverDir)); err != nil && img.cover {
		return Problem{Image: img.ID, Err: err}, true
	}
	return Problem{}, false
}

// repair deletes the broken image or layer of p, unless a container uses it.
func (m *Manager) repair(ctx context.Context, p *Problem) error {
	if p.User != "" {
		return fmt.Errorf("%s: %w", p.User, errdefs.ErrFailedPrecondition)
	}
	var err error
	switch _, broken := m.index.Load().broken[p.Image]; {
	case broken:
		err = m.removeBrokenImage(ctx, p.Image)
	case p.Image != "":
		err = m.Remove(ctx, p.Image.String())
	default:
		err = m.layers.Drop(ctx, []digest.Digest{p.Layer})
	}
	p.Repaired = err == nil
	return err
}
