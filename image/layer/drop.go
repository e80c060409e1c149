package layer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Drop deletes the layers with the ids, and keeps the layers that are in use.
func (s *Store) Drop(ctx context.Context, ids []digest.Digest) error {
	var errs []error
	for _, id := range ids {
		errs = append(errs, s.drop(ctx, id))
	}
	return errors.Join(errs...)
}

// DropOlder deletes the layers that are not in use and were unpacked before a time. Such layers are
// leftovers of failed pulls that were not repeated.
func (s *Store) DropOlder(ctx context.Context, before time.Time) error {
	var old []digest.Digest
	s.mu.Lock()
	for id, l := range s.layers {
		if l.Added.Before(before) {
			old = append(old, id)
		}
	}
	// A broken layer was kept because it was in use.
	old = slices.AppendSeq(old, maps.Keys(s.broken))
	s.mu.Unlock()
	return s.Drop(ctx, old)
}

func (s *Store) drop(ctx context.Context, id digest.Digest) error {
	unlock, err := s.ops.Lock(ctx, id.String())
	if err != nil {
		return err
	}
	defer unlock()
	if !s.removeUnused(id) {
		return nil
	}
	if err := s.cfg.Bin.Put(s.layerDir(id)); err != nil {
		return fmt.Errorf("delete layer %s: %w", id, err)
	}
	return nil
}

// removeUnused removes a layer from the maps, unless the layer is in use. It reports whether it removed
// the layer. A lease adds its hold with mu held, and an image with the layer is reported by Used before
// the lease of its pull ends, so there is no moment at which a layer in use looks unused.
func (s *Store) removeUnused(id digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[id]
	if !ok && s.broken[id] == nil || s.holds[id] > 0 || s.cfg.Used(id) {
		return false
	}
	delete(s.layers, id)
	delete(s.broken, id)
	if l != nil {
		for _, b := range l.Blobs {
			delete(s.blobs, b.Digest)
		}
	}
	return true
}
