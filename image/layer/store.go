package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	// The functions below are called with the store's lock held and must not wait.

	// Used says whether the layer must stay because an image, a root file system
	// or a volume has it, or because what has it cannot be read.
	Used func(digest.Digest) bool
	// Mounted says whether a root file system or a volume has the layer, or may.
	Mounted func(digest.Digest) bool
	// Durable says whether a record that was written after the layer had reached
	// the disk names the layer.
	Durable func(digest.Digest) bool
}

// Store keeps layers.
type Store struct {
	cfg Config
	ops oplock.Locks // by diff ID: who moves a layer's directory in or out

	mu     sync.Mutex                      // guards what follows; taken after a lock of ops
	layers map[digest.Digest]*Layer        // by diff ID
	broken map[digest.Digest]error         // by diff ID: kept on disk, and cannot be used
	blobs  map[digest.Digest]digest.Digest // diff ID by blob digest
	coming map[digest.Digest]*arrival      // by blob digest
	// held counts the leases that have a layer in hand.
	held map[digest.Digest]int
}

// NewStore returns an empty store. See Restore.
func NewStore(cfg Config) *Store {
	cfg.Limits.windows = newWindows()
	return &Store{
		cfg:    cfg,
		layers: make(map[digest.Digest]*Layer),
		broken: make(map[digest.Digest]error),
		blobs:  make(map[digest.Digest]digest.Digest),
		coming: make(map[digest.Digest]*arrival),
		held:   make(map[digest.Digest]int),
	}
}

// Restore loads the layers on disk. The files of a layer of an earlier boot
// reached the disk only if a record names the layer, so without such a record
// the layer is not loaded. A layer that cannot be loaded is deleted if nothing
// uses it. Otherwise it stays as it is, and Broken returns the reason. Report is
// told of the layers whose records cannot be read.
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
		id := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		if id.Validate() != nil {
			report(fmt.Errorf("restore layer %q: no layer has this name, it stays as it is: %w", e.Name(), errdefs.ErrInvalidArgument))
			continue
		}
		if err := s.restore(id); err != nil {
			report(fmt.Errorf("restore layer %s: %w", id, err))
		}
	}
	return nil
}

// restore is called with mu held.
func (s *Store) restore(id digest.Digest) error {
	l, err := load(s.place(id), id)
	if err == nil && (l.BootID == s.cfg.BootID || s.cfg.Durable(id)) {
		s.insert(l)
		return nil
	}
	if !s.cfg.Used(id) {
		return errors.Join(err, s.cfg.Bin.Put(s.place(id)))
	}
	if err == nil {
		err = fmt.Errorf("it was unpacked in an earlier boot, and no record shows that its files reached the disk: %w", errdefs.ErrDataLoss)
	}
	s.broken[id] = err
	return err
}

// place is where a layer lies.
func (s *Store) place(id digest.Digest) string { return filepath.Join(s.cfg.Dir, id.Encoded()) }

func load(dir string, id digest.Digest) (*Layer, error) {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return nil, err
	}
	l := &Layer{dir: dir}
	if err := json.Unmarshal(b, l); err != nil {
		return nil, fmt.Errorf("parse %s: %w: %w", recordFile, err, errdefs.ErrDataLoss)
	}
	if l.DiffID != id {
		return nil, fmt.Errorf("record is of layer %q: %w", l.DiffID, errdefs.ErrDataLoss)
	}
	if _, err := os.Lstat(l.Dir()); err != nil {
		return nil, err
	}
	return l, nil
}

// save writes the record of a layer in the stage. The sync of the image that
// the layer belongs to makes it durable.
func (l *Layer) save() error {
	return l.write(atomicfile.Write)
}

// replace replaces the record of a layer in its place, which can be durable
// already. Without a sync before the rename, a power cut could leave an empty
// file where there was a whole one.
func (l *Layer) replace() error {
	return l.write(atomicfile.WriteSync)
}

func (l *Layer) write(to func(path string, data []byte, perm os.FileMode) error) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return to(filepath.Join(l.dir, recordFile), b, 0o600)
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

// Broken returns why a layer that is on disk cannot be used, or nil.
func (s *Store) Broken(id digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken[id]
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
	// A broken layer was kept because something used it.
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
	if !s.forget(id) {
		return nil
	}
	if err := s.cfg.Bin.Put(s.place(id)); err != nil {
		return fmt.Errorf("delete layer %s: %w", id, err)
	}
	return nil
}

// forget takes a layer out of the maps, unless it is in use. A lease that gets
// the layer under way does so under mu and counts as use; an image that has it
// is in Used before its lease ends.
func (s *Store) forget(id digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[id]
	if !ok && s.broken[id] == nil || s.held[id] > 0 || s.cfg.Used(id) {
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
