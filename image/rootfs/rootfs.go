// Package rootfs mounts the root file systems of containers, which are overlays of the layers of an
// image and a writable layer of the container, and images as volumes. It owns the writable layers
// and measures their disk usage. It must not deal with registries or with the state of containers.
package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/image/trash"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/oplock"
)

// Config configures a Store. All directories must exist and be on one file system, which supports
// the upper directories of overlay.
type Config struct {
	Dir    string // the directories of the writable layers
	Stage  string // for temporary directories of probe
	Bin    *trash.Bin
	BootID string
	// Interval is the time between two measurements of a writable layer.
	Interval time.Duration
}

// Store stores the writable layers of containers.
type Store struct {
	cfg     Config
	support overlaySupport
	ops     oplock.Locks // by container id

	mu  sync.Mutex        // guards all; taken after a lock of ops
	all map[string]*entry // by container id
}

// entry is one writable layer. The Record is immutable.
type entry struct {
	Record
	usage usage
}

// Record is the record of a root file system on disk. It is written before the mount.
type Record struct {
	ContainerID string `json:"containerID"`
	ImageID     string `json:"imageID"`
	// Layers are the diff IDs of the image's layers. Records of older versions do not have this field.
	Layers []string `json:"layers,omitempty"`
	Target string   `json:"target"`
	BootID string   `json:"bootID"`
	// Unreadable reports that the record on disk cannot be read and that the root file system may
	// be mounted. The image is unknown.
	Unreadable bool `json:"-"`
}

// Request is a request for a root file system.
type Request struct {
	ContainerID string   // a complete id
	ImageID     string   // only for the record
	Layers      []string // diff IDs, only for the record
	Lower       []string // the directories of the layers, topmost first
	Target      string   // the mount point, an existing directory
	Options     Options
}

// Names in the directory of a writable layer.
const (
	upperDir   = "upper"
	workDir    = "work"
	recordFile = "rootfs.json"
)

// unmountTimeout is the time for which unmount waits for a busy file system. The mount namespace of
// a process ends a moment after the process.
const unmountTimeout = 5 * time.Second

// NewStore returns an empty store. The caller must call Restore before anything else.
func NewStore(cfg Config) *Store {
	return &Store{cfg: cfg, all: make(map[string]*entry)}
}

// Mount creates a writable layer and mounts the root file system. It returns the directory of the
// writable layer. Mount first removes the leftovers of an earlier attempt for the container.
func (s *Store) Mount(ctx context.Context, req Request) (upper string, err error) {
	if !ids.Valid(req.ContainerID) {
		return "", fmt.Errorf("invalid container id %q: %w", req.ContainerID, errdefs.ErrInvalidArgument)
	}
	if len(req.Lower) == 0 {
		return "", fmt.Errorf("image has no layers: %w", errdefs.ErrFailedPrecondition)
	}
	unlock, err := s.ops.Lock(ctx, req.ContainerID)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := s.remove(ctx, req.ContainerID); err != nil {
		return "", fmt.Errorf("remove leftovers of an earlier attempt: %w", err)
	}
	dir := filepath.Join(s.cfg.Dir, req.ContainerID)
	if err := s.create(dir, req); err != nil {
		return "", errors.Join(err, s.remove(context.WithoutCancel(ctx), req.ContainerID))
	}
	return filepath.Join(dir, upperDir), nil
}

// create writes the record, creates the writable layer and mounts the root file system.
func (s *Store) create(dir string, req Request) error {
	r := Record{ContainerID: req.ContainerID, ImageID: req.ImageID, Layers: req.Layers, Target: req.Target, BootID: s.cfg.BootID}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	s.mu.Lock()
	s.all[r.ContainerID] = &entry{Record: r}
	s.mu.Unlock()
	if err := atomicfile.Write(filepath.Join(dir, recordFile), b, 0o600); err != nil {
		return err
	}
	upper, work := filepath.Join(dir, upperDir), filepath.Join(dir, workDir)
	// The root directory of the overlay has the owner and mode of the upper directory.
	err = errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o700), layer.CopyMetadata(upper, req.Lower[0]))
	if err != nil {
		return err
	}
	return s.support.mount(overlay{lower: req.Lower, upper: upper, work: work, options: req.Options}, req.Target)
}

// Unmount unmounts a root file system and deletes the writable layer. It is not an error if there
// is none. If Unmount fails, the record is kept and the caller can call Unmount again.
func (s *Store) Unmount(ctx context.Context, containerID string) error {
	unlock, err := s.ops.Lock(ctx, containerID)
	if err != nil {
		return err
	}
	defer unlock()
	return s.remove(ctx, containerID)
}

// remove is Unmount for callers that hold the operation lock of the container.
func (s *Store) remove(ctx context.Context, containerID string) error {
	s.mu.Lock()
	e, ok := s.all[containerID]
	s.mu.Unlock()
	if !ok {
		return nil
	}
	dir := filepath.Join(s.cfg.Dir, containerID)
	targets := []string{e.Target}
	if e.Target == "" {
		var err error
		if targets, err = findMounts(dir, containerID); err != nil {
			return err
		}
	}
	for _, target := range targets {
		if err := unmount(ctx, target); err != nil {
			return err
		}
	}
	if err := s.cfg.Bin.Put(dir); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, containerID)
	return nil
}

// unmount unmounts target. It waits for a busy file system up to unmountTimeout. It never detaches
// the mount, because a detached file system stays in use.
func unmount(ctx context.Context, target string) error {
	for deadline := time.Now().Add(unmountTimeout); ; {
		err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // not a mount point, or target does not exist
			return nil
		case err == nil:
			return nil
		case !errors.Is(err, unix.EBUSY):
			return fmt.Errorf("unmount %s: %w", target, err)
		case time.Now().After(deadline):
			return fmt.Errorf("unmount %s: %w: %w", target, err, errdefs.ErrFailedPrecondition)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("unmount %s: %w: %w", target, err, context.Cause(ctx))
		}
	}
}

// Record returns the record of a container's root file system. It returns ErrNotFound if there is none.
func (s *Store) Record(containerID string) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.all[containerID]
	if !ok {
		return Record{}, fmt.Errorf("root file system of container %q: %w", containerID, errdefs.ErrNotFound)
	}
	return e.Record, nil
}

// Dirs returns the paths of the writable layer and of the work directory of a container.
func (s *Store) Dirs(containerID string) (upper, work string) {
	dir := filepath.Join(s.cfg.Dir, containerID)
	return filepath.Join(dir, upperDir), filepath.Join(dir, workDir)
}

// Records returns the records of all root file systems.
func (s *Store) Records() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	records := make([]Record, 0, len(s.all))
	for _, e := range s.all {
		records = append(records, e.Record)
	}
	return records
}

// Sweep removes the root file systems of the containers for which live returns false.
func (s *Store) Sweep(ctx context.Context, live func(containerID string) bool) error {
	var errs []error
	for _, r := range s.Records() {
		if !live(r.ContainerID) {
			errs = append(errs, s.Unmount(ctx, r.ContainerID))
		}
	}
	return errors.Join(errs...)
}
