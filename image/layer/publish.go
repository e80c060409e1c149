package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// add unpacks a blob in the staging directory and publishes the layer with a hold.
func (s *Store) add(ctx context.Context, src Source, limits Limits) (published *Layer, err error) {
	stage, err := os.MkdirTemp(s.cfg.Stage, "layer-")
	if err != nil {
		return nil, err
	}
	// The staging directory still exists at the end if unpacking has failed or if the store already
	// had the layer from another blob.
	defer func() { err = errors.Join(err, s.cfg.Bin.Put(stage)) }()
	files := filepath.Join(stage, filesDir)
	if err := os.Mkdir(files, 0o755); err != nil {
		return nil, err
	}
	layer, err := unpack(ctx, files, src, limits)
	if err != nil {
		return nil, err
	}
	if layer.Tree, err = treeDigest(ctx, files); err != nil {
		return nil, err
	}
	layer.BootID, layer.Added = s.cfg.BootID, time.Now()
	return s.publish(ctx, &layer, stage)
}

// publish moves an unpacked layer from the staging directory to its final directory. If the store
// already has the layer, publish only adds the blob to it. publish adds a hold to the layer.
func (s *Store) publish(ctx context.Context, l *Layer, stage string) (*Layer, error) {
	unlock, err := s.ops.Lock(ctx, l.DiffID.String())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if existing, ok := s.hold(l.DiffID); ok {
		return s.addBlob(existing, l.Blobs[0])
	}
	l.dir = stage
	if err := l.save(); err != nil {
		return nil, err
	}
	if err := s.moveFromStage(ctx, l, stage); err != nil {
		return nil, err
	}
	l.dir = s.layerDir(l.DiffID)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.broken, l.DiffID)
	s.insert(l)
	s.holds[l.DiffID]++
	return l, nil
}

// moveFromStage moves a staged layer to its final directory. If that directory exists, it is the
// leftover of a failed deletion or a broken layer. If a container has the broken layer mounted,
// its files are kept and only the record is replaced.
func (s *Store) moveFromStage(ctx context.Context, l *Layer, stage string) error {
	final := s.layerDir(l.DiffID)
	err := os.Rename(stage, final)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	s.mu.Lock()
	mounted := s.cfg.Mounted(l.DiffID)
	s.mu.Unlock()
	if !mounted {
		return errors.Join(s.cfg.Bin.Put(final), os.Rename(stage, final))
	}
	same, err := SameTree(ctx, filepath.Join(final, filesDir), filepath.Join(stage, filesDir))
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("layer %s on disk is damaged and mounted by a container: %w", l.DiffID, errdefs.ErrFailedPrecondition)
	}
	existing := *l
	existing.dir = final
	if existing.Tree, err = treeDigest(ctx, existing.Dir()); err != nil {
		return err
	}
	l.Tree = existing.Tree
	return existing.replace()
}

// hold adds a hold to a layer, if the store has the layer.
func (s *Store) hold(id digest.Digest) (*Layer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[id]
	if ok {
		s.holds[id]++
	}
	return l, ok
}

// addBlob adds a blob to a layer. The caller holds the operation lock of the layer, and the layer
// has a hold.
func (s *Store) addBlob(l *Layer, b Blob) (*Layer, error) {
	if _, ok := l.Blob(b.Digest); ok {
		return l, nil
	}
	updated := *l
	updated.Blobs = append(append([]Blob(nil), l.Blobs...), b)
	// If the record cannot be written, the blob is fetched again by the next pull.
	if err := updated.replace(); err != nil {
		return l, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insert(&updated)
	return &updated, nil
}
