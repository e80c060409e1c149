// Package rootfs mounts the root file systems of containers: overlay over the
// layers of an image, with a writable layer of the container's own. It owns the
// writable layers and knows what they take on disk; it knows nothing of
// registries or of the containers' lives.
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

// Config is what a Store needs. All directories exist and are on one file
// system, which overlay can write to.
type Config struct {
	Dir    string // the writable layers, by container
	Stage  string // for the probe of the kernel
	Bin    *trash.Bin
	BootID string
	// Interval is between two measurements of a writable layer.
	Interval time.Duration
}

// Store keeps writable layers.
type Store struct {
	cfg     Config
	support support
	ops     oplock.Locks // by container

	mu  sync.Mutex // guards all; taken after a lock of ops
	all map[string]*entry
}

// entry is one writable layer. Record never changes.
type entry struct {
	Record
	usage usage
}

// Record is what is kept of a root file system. It is written before anything
// is mounted.
type Record struct {
	ContainerID string `json:"containerID"`
	ImageID     string `json:"imageID"`
	// Layers are the diff IDs of the image's layers. Records of older versions
	// do not have them.
	Layers []string `json:"layers,omitempty"`
	Target string   `json:"target"`
	BootID string   `json:"bootID"`
	// Unreadable says that the record on disk cannot be read and that the root
	// file system is, or may be, mounted. The image is unknown.
	Unreadable bool `json:"-"`
}

// Request asks for a root file system.
type Request struct {
	ContainerID string   // a full id
	ImageID     string   // noted, not looked at
	Layers      []string // diff IDs, likewise
	Lower       []string // the directories to mount, topmost first
	Target      string   // where to mount, an existing directory
	Options     Options
}

// Names in the directory of a writable layer.
const (
	upperDir   = "upper"
	workDir    = "work"
	recordFile = "rootfs.json"
)

// unmountPatience is how long an unmount may find the file system busy: the
// mount namespace of a process that has just ended goes a little later.
const unmountPatience = 5 * time.Second

// NewStore returns an empty store. See Restore.
func NewStore(cfg Config) *Store {
	return &Store{cfg: cfg, all: make(map[string]*entry)}
}

// Mount makes a writable layer and mounts the root file system. What an earlier
// try has left is removed first. It returns the writable layer's directory.
func (s *Store) Mount(ctx context.Context, req Request) (upper string, err error) {
	if !ids.Valid(req.ContainerID) {
		return "", fmt.Errorf("container id %q: %w", req.ContainerID, errdefs.ErrInvalidArgument)
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
		return "", fmt.Errorf("remove what is left of an earlier try: %w", err)
	}
	dir := filepath.Join(s.cfg.Dir, req.ContainerID)
	if err := s.make(dir, req); err != nil {
		return "", errors.Join(err, s.remove(context.WithoutCancel(ctx), req.ContainerID))
	}
	return filepath.Join(dir, upperDir), nil
}

func (s *Store) make(dir string, req Request) error {
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
	// The merged root shows the upper directory's owner and mode.
	err = errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o700), layer.CopyMetadata(upper, req.Lower[0]))
	if err != nil {
		return err
	}
	return s.support.mount(overlay{lower: req.Lower, upper: upper, work: work, options: req.Options}, req.Target)
}

// Unmount unmounts a root file system and deletes the writable layer. That
// there is none is no error. When it fails, all stays as it is, to be asked for
// again.
func (s *Store) Unmount(ctx context.Context, containerID string) error {
	unlock, err := s.ops.Lock(ctx, containerID)
	if err != nil {
		return err
	}
	defer unlock()
	return s.remove(ctx, containerID)
}

// remove is called with the container's lock of ops.
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
		if targets, err = mountsOf(dir, containerID); err != nil {
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

// unmount undoes what is mounted at target. A busy file system is waited for,
// but not for long, and never detached: that would hide it, not end it.
func unmount(ctx context.Context, target string) error {
	for deadline := time.Now().Add(unmountPatience); ; {
		err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // no mount point, or nothing at all
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

// Records returns all root file systems.
func (s *Store) Records() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	records := make([]Record, 0, len(s.all))
	for _, e := range s.all {
		records = append(records, e.Record)
	}
	return records
}

// Sweep removes the root file systems of containers that live does not know.
func (s *Store) Sweep(ctx context.Context, live func(containerID string) bool) error {
	var errs []error
	for _, r := range s.Records() {
		if !live(r.ContainerID) {
			errs = append(errs, s.Unmount(ctx, r.ContainerID))
		}
	}
	return errors.Join(errs...)
}
