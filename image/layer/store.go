package layer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/userns"
	"github.com/opencontainers/go-digest"

	"github.com/criserver/criserver/image/trash"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/internal/oplock"
)

// Config configures a Store. All directories must exist and be on one file system.
type Config struct {
	Dir    string // the directories of the layers
	Stage  string // layers that are being unpacked; the caller empties it before Restore
	Bin    *trash.Bin
	BootID string
	Limits Limits

	// The store calls the functions below with its lock held, so they must not block.

	// Used reports whether a layer must not be deleted, because an image, a root file system or a
	// volume has the layer, or has a record that cannot be read.
	Used func(digest.Digest) bool
	// Mounted reports whether a root file system or a volume has the layer, or may have it.
	Mounted func(digest.Digest) bool
	// Durable reports whether there is a record with the layer that was written after the layer had
	// been synced to disk.
	Durable func(digest.Digest) bool
}

// Store stores layers.
type Store struct {
	cfg    Config // without the limits
	limits atomic.Pointer[Limits]
	ops    oplock.Locks // by diff ID; held while the directory of a layer is moved

	mu       sync.Mutex                      // guards the fields below; taken after a lock of ops
	layers   map[digest.Digest]*Layer        // by diff ID
	broken   map[digest.Digest]error         // by diff ID: layers on disk that cannot be used
	blobs    map[digest.Digest]digest.Digest // diff ID by blob digest
	reserved map[digest.Digest]*reservation  // by blob digest
	holds    map[digest.Digest]int           // number of holds of leases by diff ID
}

// NewStore returns an empty store. The caller must call Restore before anything else.
func NewStore(cfg Config) *Store {
	limits := cfg.Limits
	limits.windows, cfg.Limits = newWindows(), Limits{}
	s := &Store{
		cfg:      cfg,
		layers:   make(map[digest.Digest]*Layer),
		broken:   make(map[digest.Digest]error),
		blobs:    make(map[digest.Digest]digest.Digest),
		reserved: make(map[digest.Digest]*reservation),
		holds:    make(map[digest.Digest]int),
	}
	s.limits.Store(&limits)
	return s
}

// SetLimits replaces the limits for leases that begin after it.
func (s *Store) SetLimits(l Limits) {
	l.windows = s.limits.Load().windows
	s.limits.Store(&l)
}

// Restore loads the layers on disk. A layer of an earlier boot is loaded only if it is durable, because
// otherwise its files may not have reached the disk. A layer that cannot be loaded is deleted if it is
// not in use. Otherwise its directory is kept, and Broken returns the reason. Restore calls report for
// each layer whose record cannot be read.
func (s *Store) Restore(report func(error)) error {
	// The function caches its result. The first call needs /proc, so it is made here and not on
	// a thread that is chrooted into a layer.
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
			report(fmt.Errorf("restore layer %q: name is not a diff id, directory is kept: %w", e.Name(), errdefs.ErrInvalidArgument))
			continue
		}
		if err := s.restore(id); err != nil {
			report(fmt.Errorf("restore layer %s: %w", id, err))
		}
	}
	return nil
}

// restore loads one layer. The caller holds mu.
func (s *Store) restore(id digest.Digest) error {
	l, err := load(s.layerDir(id), id)
	if err == nil && (l.BootID == s.cfg.BootID || s.cfg.Durable(id)) {
		s.insert(l)
		return nil
	}
	if !s.cfg.Used(id) {
		return errors.Join(err, s.cfg.Bin.Put(s.layerDir(id)))
	}
	if err == nil {
		err = fmt.Errorf("layer was unpacked in an earlier boot, and no record shows that it was synced to disk: %w", errdefs.ErrDataLoss)
	}
	s.broken[id] = err
	return err
}

// layerDir returns the directory of a layer.
func (s *Store) layerDir(id digest.Digest) string { return filepath.Join(s.cfg.Dir, id.Encoded()) }

// load reads the record of a layer.
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
		return nil, fmt.Errorf("record has diff id %q: %w", l.DiffID, errdefs.ErrDataLoss)
	}
	if _, err := os.Lstat(l.Dir()); err != nil {
		return nil, err
	}
	return l, nil
}

// save writes the record of a staged layer. The record becomes durable when an image with the layer is
// synced.
func (l *Layer) save() error {
	return l.write(atomicfile.Write)
}

// replace replaces the record of a published layer, which may be durable already. Without a sync
// before the rename, a power cut could leave an empty file instead of the old record.
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

// insert adds or replaces a layer. The caller holds mu.
func (s *Store) insert(l *Layer) {
	s.layers[l.DiffID] = l
	for _, b := range l.Blobs {
		s.blobs[b.Digest] = l.DiffID
	}
}

// Get returns the layer with a diff ID.
func (s *Store) Get(id digest.Digest) (*Layer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[id]
	return l, ok
}

// Broken returns the reason why a layer on disk cannot be used, or nil.
func (s *Store) Broken(id digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken[id]
}

// Count returns the number of layers that can be used.
func (s *Store) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.layers)
}

// Total returns the disk usage of all layers.
func (s *Store) Total() (bytes, inodes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.layers {
		bytes += l.Bytes
		inodes += l.Inodes
	}
	return bytes, inodes
}
