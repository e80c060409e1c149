package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/userns"
	"github.com/opencontainers/go-digest"

	"github.com/criserver/criserver/image/trash"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/internal/oplock"
)

// Config is what a Store needs. All directories exist and are on one file
// system.
type Config struct {
	Dir    string // the layers
	Stage  string // layers while they are unpacked; emptied on start by its owner
	Bin    *trash.Bin
	BootID string
	Limits Limits
	// Used says whether an image or a mounted root file system has the layer.
	// It is called with the store's lock held and must not wait.
	Used func(digest.Digest) bool
}

// Store keeps layers.
type Store struct {
	cfg Config
	ops oplock.Locks // by diff ID: who moves a layer's directory in or out

	mu     sync.Mutex                      // guards what follows; taken after a lock of ops
	layers map[digest.Digest]*Layer        // by diff ID
	blobs  map[digest.Digest]digest.Digest // diff ID by blob digest
	coming map[digest.Digest]*arrival      // by blob digest
	// held counts the leases that have a layer in hand.
	held map[digest.Digest]int
}

// NewStore returns an empty store. See Restore.
func NewStore(cfg Config) *Store {
	return &Store{
		cfg:    cfg,
		layers: make(map[digest.Digest]*Layer),
		blobs:  make(map[digest.Digest]digest.Digest),
		coming: make(map[digest.Digest]*arrival),
		held:   make(map[digest.Digest]int),
	}
}

// Restore loads the layers on disk. Those of an earlier boot that no image is
// known to have were perhaps never written out, and go. Report is told of the
// records that cannot be read; their layers are fetched again when needed.
func (s *Store) Restore(report func(error)) error {
	// Asked for the first time in a layer's root, this would find no /proc.
	userns.RunningInUserNS()
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("restore layers: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		dir := filepath.Join(s.cfg.Dir, e.Name())
		l, err := load(dir)
		if err == nil && l.DiffID != digest.NewDigestFromEncoded(digest.SHA256, e.Name()) {
			err = fmt.Errorf("record is of layer %s: %w", l.DiffID, errdefs.ErrDataLoss)
		}
		if err == nil && (l.BootID == s.cfg.BootID || s.cfg.Used(l.DiffID)) {
			s.insert(l)
			continue
		}
		if err != nil {
			report(fmt.Errorf("restore layer %s: %w", e.Name(), err))
		}
		if err := s.cfg.Bin.Put(dir); err != nil {
			report(err)
		}
	}
	return nil
}

func load(dir string) (*Layer, error) {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return nil, err
	}
	l := &Layer{dir: dir}
	if err := json.Unmarshal(b, l); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(l.Dir()); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Layer) save() error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(l.dir, recordFile), b, 0o600)
}

// insert is called with mu held.
func (s *Store) insert(l *Layer) {
	s.layers[l.DiffID] = l
	for _, b := range l.Blobs {
		s.blobs[b.Digest] = l.DiffID
	}
}

// Get returns the layer with this diff ID.
func (s *Store) Get(id digest.Digest) (*Layer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[id]
	return l, ok
}

// Drop deletes those of the layers that nothing uses.
func (s *Store) Drop(ctx context.Context, ids []digest.Digest) error {
	var errs []error
	for _, id := range ids {
		errs = append(errs, s.drop(ctx, id))
	}
	return errors.Join(errs...)
}

// DropOlder deletes the layers that nothing uses and that were unpacked before
// the time: what interrupted pulls have left and no retry came back for.
func (s *Store) DropOlder(ctx context.Context, than time.Time) error {
	var old []digest.Digest
	s.mu.Lock()
	for id, l := range s.layers {
		if l.Added.Before(than) {
			old = append(old, id)
		}
	}
	s.mu.Unlock()
	return s.Drop(ctx, old)
}

func (s *Store) drop(ctx context.Context, id digest.Digest) error {
	unlock, err := s.ops.Lock(ctx, id.String())
	if err != nil {
		return err
	}
	defer unlock()
	l, ok := s.forget(id)
	if !ok {
		return nil
	}
	if err := s.cfg.Bin.Put(l.dir); err != nil {
		return fmt.Errorf("delete layer %s: %w", id, err)
	}
	return nil
}

// forget takes a layer out of the maps, unless it is in use. A lease that gets
// the layer under way does so under mu and counts as use; an image that has it
// is in Used before its lease ends.
func (s *Store) forget(id digest.Digest) (*Layer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[id]
	if !ok || s.held[id] > 0 || s.cfg.Used(id) {
		return nil, false
	}
	delete(s.layers, id)
	for _, b := range l.Blobs {
		delete(s.blobs, b.Digest)
	}
	return l, true
}

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
	final := filepath.Join(s.cfg.Dir, l.DiffID.Encoded())
	err = os.Rename(stage, final)
	if errors.Is(err, fs.ErrExist) {
		// A directory whose deletion has failed.
		err = errors.Join(s.cfg.Bin.Put(final), os.Rename(stage, final))
	}
	if err != nil {
		return nil, err
	}
	l.dir = final
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insert(l)
	s.held[l.DiffID]++
	return l, nil
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
	// Lost, the record only costs a download.
	if err := wider.save(); err != nil {
		return l, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insert(&wider)
	return &wider, nil
}

// Total returns what all layers take on disk.
func (s *Store) Total() (bytes, inodes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.layers {
		bytes += l.Bytes
		inodes += l.Inodes
	}
	return bytes, inodes
}
