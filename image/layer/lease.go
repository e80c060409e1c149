package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// Lease is one pull's hand on the store: what it finds or adds is not deleted
// until the lease is closed.
type Lease struct {
	store *Store

	mu      sync.Mutex               // guards what follows
	blobs   map[digest.Digest]*Layer // in hand, by blob digest
	added   []digest.Digest          // diff IDs that this lease has unpacked
	claimed map[digest.Digest]*arrival
}

// arrival is a blob that is being unpacked.
type arrival struct {
	done  chan struct{} // closed when that has ended, well or not
	bytes atomic.Int64  // that came and that were unpacked so far
}

// Lease returns a new lease, to be closed.
func (s *Store) Lease() *Lease {
	return &Lease{
		store:   s,
		blobs:   make(map[digest.Digest]*Layer),
		claimed: make(map[digest.Digest]*arrival),
	}
}

// Find returns the layer that a blob unpacks to. Without one, nil: then the
// caller is the one to bring it, with Add. While another pull is at that, Find
// waits for it, and calls moved as long as it gets on.
func (l *Lease) Find(ctx context.Context, blob digest.Digest, moved func(n int)) (*Layer, error) {
	var last int64
	for {
		found, other := l.find(blob)
		if other == nil {
			return found, nil
		}
		look := time.NewTimer(time.Second)
		select {
		case <-other.done:
		case <-look.C:
			if n := other.bytes.Load(); n != last {
				moved(int(n - last))
				last = n
			}
		case <-ctx.Done():
			look.Stop()
			return nil, context.Cause(ctx)
		}
		look.Stop()
	}
}

// find returns the layer, or who is bringing it, or neither, when from now on
// this lease is.
func (l *Lease) find(blob digest.Digest) (*Layer, *arrival) {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if id, ok := s.blobs[blob]; ok {
		if _, ok := l.blobs[blob]; !ok {
			l.blobs[blob] = s.layers[id]
			s.held[id]++
		}
		return s.layers[id], nil
	}
	if other, ok := s.coming[blob]; ok {
		return nil, other
	}
	a := &arrival{done: make(chan struct{})}
	s.coming[blob], l.claimed[blob] = a, a
	return nil, nil
}

// Add unpacks a blob that Find did not.
func (l *Lease) Add(ctx context.Context, src Source) (*Layer, error) {
	blob := src.Blob.Digest
	defer l.disclaim(blob)
	layer, err := l.store.add(ctx, l.follow(src))
	if err != nil {
		return nil, fmt.Errorf("unpack layer %s: %w", blob, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.added = append(l.added, layer.DiffID)
	l.blobs[blob] = layer // with the hold that add has taken
	return layer, nil
}

// follow lets those who wait for a blob see how it gets on.
func (l *Lease) follow(src Source) Source {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, ok := l.claimed[src.Blob.Digest]; ok {
		progress := src.Progress
		src.Progress = func(n int) { a.bytes.Add(int64(n)); progress(n) }
		src.Reader = arriving{src.Reader, a}
	}
	return src
}

// arriving counts what comes of a blob, slow as it may.
type arriving struct {
	io.Reader
	arrival *arrival
}

func (r arriving) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.arrival.bytes.Add(int64(n))
	return n, err
}

// add unpacks a blob in the stage and puts the layer, held, in its place.
func (s *Store) add(ctx context.Context, src Source) (placed *Layer, err error) {
	stage, err := os.MkdirTemp(s.cfg.Stage, "layer-")
	if err != nil {
		return nil, err
	}
	// What is still there at the end is of no use: half a layer, or one that
	// another blob has brought as well.
	defer func() { err = errors.Join(err, s.cfg.Bin.Put(stage)) }()
	files := filepath.Join(stage, filesDir)
	if err := os.Mkdir(files, 0o755); err != nil {
		return nil, err
	}
	layer, err := unpack(ctx, files, src, s.cfg.Limits)
	if err != nil {
		return nil, err
	}
	if layer.Tree, err = tree(ctx, files); err != nil {
		return nil, err
	}
	layer.BootID, layer.Added = s.cfg.BootID, time.Now()
	return s.publish(ctx, &layer, stage)
}

// Layer returns the layer in hand for a blob.
func (l *Lease) Layer(blob digest.Digest) (*Layer, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	layer, ok := l.blobs[blob]
	return layer, ok
}

// Added returns the diff IDs of the layers that came through this lease.
func (l *Lease) Added() []digest.Digest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.added)
}

// disclaim lets others try to bring a blob, or find it.
func (l *Lease) disclaim(blob digest.Digest) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, ok := l.claimed[blob]; ok {
		delete(l.claimed, blob)
		delete(l.store.coming, blob)
		close(a.done)
	}
}

// ReleaseReservations gives up the blobs that Find left to this lease and that it has not
// brought, so that others, or a next attempt by it, can.
func (l *Lease) ReleaseReservations() {
	l.mu.Lock()
	claims := slices.Collect(maps.Keys(l.claimed))
	l.mu.Unlock()
	for _, blob := range claims {
		l.disclaim(blob)
	}
}

// Close gives up what the lease has in hand.
func (l *Lease) Close() {
	l.ReleaseReservations()
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for blob, layer := range l.blobs {
		delete(l.blobs, blob)
		if l.store.held[layer.DiffID]--; l.store.held[layer.DiffID] == 0 {
			delete(l.store.held, layer.DiffID)
		}
	}
}
