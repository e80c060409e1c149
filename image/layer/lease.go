package layer

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/criserver/criserver/internal/steps"
	"github.com/opencontainers/go-digest"
)

// Lease holds the layers of one pull, load or save: the layers that the lease finds or adds are not deleted
// until the lease is closed.
type Lease struct {
	store  *Store
	limits *Limits // in force when the pull began

	mu       sync.Mutex               // guards the fields below; taken after the lock of the store
	held     map[digest.Digest]*Layer // by blob digest
	added    []digest.Digest          // diff IDs of the layers that this lease has unpacked
	reserved map[digest.Digest]*reservation
	// expected has the diff IDs that Expect has set, by blob digest.
	expected map[digest.Digest]digest.Digest
}

// reservation is the reservation of a blob by the lease that unpacks the blob. Other leases wait
// for it.
type reservation struct {
	done  chan struct{} // closed when the lease has unpacked the blob or given up
	bytes atomic.Int64  // received and unpacked so far
}

// Lease returns a new lease. The caller must close it.
func (s *Store) Lease() *Lease {
	return &Lease{
		store:    s,
		limits:   s.limits.Load(),
		held:     make(map[digest.Digest]*Layer),
		reserved: make(map[digest.Digest]*reservation),
		expected: make(map[digest.Digest]digest.Digest),
	}
}

// Expect sets the diff ID that the config of an image states for a blob. Find then also finds a layer with
// this diff ID that was unpacked from another blob. The statement is not verified, so the caller must
// compare the diff IDs of the layers that the lease holds with those in the config.
func (l *Lease) Expect(blob, diffID digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expected[blob] = diffID
}

// Hold holds the layer with a diff ID. ok is false if the store has no such layer, or if it cannot be used.
func (l *Lease) Hold(diffID digest.Digest) (_ *Layer, ok bool) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	// The digest of a layer's tar is the digest of its uncompressed blob.
	return l.hold(diffID, diffID)
}

// hold holds the layer with a diff ID as the layer of a blob. The caller holds both locks.
func (l *Lease) hold(blob, diffID digest.Digest) (*Layer, bool) {
	layer, ok := l.store.layers[diffID]
	if !ok {
		return nil, false
	}
	if _, held := l.held[blob]; !held {
		l.held[blob] = layer
		l.store.holds[diffID]++
	}
	return layer, true
}

// Find returns the layer of a blob. If there is no such layer, Find returns nil and reserves the
// blob for this lease, which must then call Add. If another lease unpacks the blob, Find waits for
// it, and calls progress with the number of bytes that the other lease has received or unpacked.
func (l *Lease) Find(ctx context.Context, blob digest.Digest, progress func(n int)) (_ *Layer, err error) {
	var reported int64
	var wait *steps.Step
	for {
		found, other := l.findOrReserve(blob)
		if other == nil {
			wait.End(nil)
			return found, nil
		}
		if wait == nil {
			_, wait = steps.Start(ctx, steps.LayerWait, steps.Layer(blob.String()))
		}
		timer := time.NewTimer(time.Second)
		select {
		case <-other.done:
		case <-timer.C:
			if n := other.bytes.Load(); n != reported {
				progress(int(n - reported))
				reported = n
			}
		case <-ctx.Done():
			timer.Stop()
			wait.End(context.Cause(ctx))
			return nil, context.Cause(ctx)
		}
		timer.Stop()
	}
}

// findOrReserve returns the layer of a blob, or the reservation of another lease. If there is
// neither, findOrReserve reserves the blob and returns nil.
func (l *Lease) findOrReserve(blob digest.Digest) (*Layer, *reservation) {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	id, ok := s.blobs[blob]
	if !ok {
		id = l.expected[blob]
	}
	if layer, ok := l.hold(blob, id); ok {
		return layer, nil
	}
	if other, ok := s.reserved[blob]; ok {
		return nil, other
	}
	r := &reservation{done: make(chan struct{})}
	s.reserved[blob], l.reserved[blob] = r, r
	return nil, nil
}

// Add unpacks a blob that Find did not find.
func (l *Lease) Add(ctx context.Context, src Source) (*Layer, error) {
	blob := src.Blob.Digest
	defer l.release(blob)
	layer, err := l.store.add(ctx, l.withProgress(src), *l.limits)
	if err != nil {
		return nil, fmt.Errorf("unpack layer %s: %w", blob, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.added = append(l.added, layer.DiffID)
	l.held[blob] = layer // Store.add has added the hold
	return layer, nil
}

// withProgress returns src with a reader and a callback that count bytes in the reservation of the
// blob, for the leases that wait for it.
func (l *Lease) withProgress(src Source) Source {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.reserved[src.Blob.Digest]; ok {
		progress := src.Progress
		src.Progress = func(n int) { r.bytes.Add(int64(n)); progress(n) }
		src.Reader = countingReader{src.Reader, r}
	}
	return src
}

// countingReader counts received bytes. A slow connection takes long to fill the chunks that are
// unpacked.
type countingReader struct {
	io.Reader
	reservation *reservation
}

func (r countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.reservation.bytes.Add(int64(n))
	return n, err
}

// Layer returns the layer that the lease holds for a blob.
func (l *Lease) Layer(blob digest.Digest) (*Layer, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	layer, ok := l.held[blob]
	return layer, ok
}

// Added returns the diff IDs of the layers that this lease has unpacked.
func (l *Lease) Added() []digest.Digest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.added)
}

// release ends the reservation of a blob. The leases that wait for the blob then find the layer, or
// one of them reserves the blob.
func (l *Lease) release(blob digest.Digest) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.reserved[blob]; ok {
		delete(l.reserved, blob)
		delete(l.store.reserved, blob)
		close(r.done)
	}
}

// ReleaseReservations ends the reservations of the blobs that the lease has not unpacked, so that
// another lease or another attempt of this lease can unpack them.
func (l *Lease) ReleaseReservations() {
	l.mu.Lock()
	blobs := slices.Collect(maps.Keys(l.reserved))
	l.mu.Unlock()
	for _, blob := range blobs {
		l.release(blob)
	}
}

// Close ends the reservations and holds of the lease.
func (l *Lease) Close() {
	l.ReleaseReservations()
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for blob, layer := range l.held {
		delete(l.held, blob)
		if l.store.holds[layer.DiffID]--; l.store.holds[layer.DiffID] == 0 {
			delete(l.store.holds, layer.DiffID)
		}
	}
}
