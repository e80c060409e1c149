package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// publish moves an unpacked layer from its stage to its place, or adds its blob
// to the layer that is there already. The layer it returns is held.
func (s *Store) publish(ctx context.Context, l *Layer, stage string) (*Layer, error) {
	unlock, err := s.ops.Lock(ctx, l.DiffID.String())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if known, ok := s.hold(l.DiffID); ok {
		return s.addBlob(known, l.Blobs[0])
	}
	l.dir = stage
	if err := l.save(); err != nil {
		return nil, err
	}
	if err := s.settle(ctx, l, stage); err != nil {
		return nil, err
	}
	l.dir = s.place(l.DiffID)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.broken, l.DiffID)
	s.insert(l)
	s.held[l.DiffID]++
	return l, nil
}

// settle moves a staged layer to its place. What is there is the rest of a
// deletion that failed, or a layer that could not be loaded. If a container has
// such a layer mounted, its files stay and only the record is replaced.
func (s *Store) settle(ctx context.Context, l *Layer, stage string) error {
	final := s.place(l.DiffID)
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
		return fmt.Errorf("layer %s on disk is damaged, and a container uses it: %w", l.DiffID, errdefs.ErrFailedPrecondition)
	}
	kept := *l
	kept.dir = final
	if kept.Tree, err = tree(ctx, kept.Dir()); err != nil {
		return err
	}
	l.Tree = kept.Tree
	return kept.replace()
}

func (s *Store) hold(id digest.Digest) (*Layer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[id]
	if ok {
		s.held[id]++
	}
	return l, ok
}

// addBlob is called with the layer's lock of ops and a hold on it.
func (s *Store) addBlob(l *Layer, b Blob) (*Layer, error) {
	if _, ok := l.Blob(b.Digest); ok {
		return l, nil
	}
	wider := *l
	wider.Blobs = append(append([]Blob(nil), l.Blobs...), b)
	// Without the record, the blob is only fetched another time.
	if err := wider.replace(); err != nil {
		return l, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insert(&wider)
	return &wider, nil
}
