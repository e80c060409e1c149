package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Problem is something that Check has found.
type Problem struct {
	// Image is the image that is broken; empty for a layer that none has.
	Image ID
	Layer digest.Digest // empty when it is the image's own records
	Err   error
	// Repaired says that what is broken was deleted, to be pulled again when it
	// is needed.
	Repaired bool

	unloaded bool // the image is a directory and nothing more
}

// Check compares all images with what was stored: manifest and config by their
// digests, layers by the names, kinds, owners and sizes of their files. With
// repair it deletes the images that are broken, and the layers that made them
// so; others keep what they have. An image in use is only reported. The error
// is the context's.
func (m *Manager) Check(ctx context.Context, repair bool) ([]Problem, error) {
	broken := make(map[digest.Digest]error)
	for _, id := range m.layers.IDs() {
		if err := m.layers.Verify(ctx, id); err != nil && !errdefs.IsNotFound(err) {
			broken[id] = err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	found, err := m.checkRecords(ctx)
	if err != nil {
		return nil, err
	}
	for _, img := range m.now.Load().all {
		if p, bad := m.checkImage(img, broken); bad {
			found = append(found, p)
		}
	}
	used := m.now.Load().usesLayer
	for id, err := range broken {
		if !used[id] {
			found = append(found, Problem{Layer: id, Err: err})
		}
	}
	if repair {
		for i := range found {
			m.repair(ctx, &found[i])
		}
	}
	return found, nil
}

// checkRecords finds the images that could not be loaded.
func (m *Manager) checkRecords(ctx context.Context) ([]Problem, error) {
	unlock, err := m.lockCommit(ctx) // else an image on its way in would be one
	if err != nil {
		return nil, err
	}
	defer unlock()
	entries, err := os.ReadDir(m.dir(imagesDir))
	if err != nil {
		return nil, err
	}
	var found []Problem
	for _, e := range entries {
		id := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		if _, ok := m.now.Load().byID[id]; ok {
			continue
		}
		_, err := loadImage(filepath.Join(m.dir(imagesDir), e.Name()))
		if err == nil {
			err = errdefs.ErrDataLoss // its layers were the trouble
		}
		found = append(found, Problem{Image: id, Err: fmt.Errorf("cannot be loaded: %w", err), unloaded: true})
	}
	return found, nil
}

func (m *Manager) checkImage(img *stored, broken map[digest.Digest]error) (Problem, bool) {
	for _, l := range img.Layers {
		if err, bad := broken[l.DiffID]; bad {
			return Problem{Image: img.ID, Layer: l.DiffID, Err: err}, true
		}
	}
	dir := m.imageDir(img.ID)
	for name, want := range map[string]digest.Digest{manifestFile: img.Manifest, configFile: img.ID} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil && digest.FromBytes(b) != want {
			err = fmt.Errorf("%s is not the one that was stored: %w", name, errdefs.ErrDataLoss)
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

// repair deletes what is broken, and notes why not if it cannot.
func (m *Manager) repair(ctx context.Context, p *Problem) {
	var err error
	switch {
	case p.unloaded:
		err = m.bin.Put(m.imageDir(p.Image))
	case p.Image != "":
		err = m.Remove(ctx, p.Image.String())
	default:
		err = m.layers.Drop(ctx, []digest.Digest{p.Layer})
	}
	if err != nil {
		p.Err = fmt.Errorf("%w; not repaired: %w", p.Err, err)
		return
	}
	p.Repaired = true
}
