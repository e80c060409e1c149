package rootfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/internal/ids"
)

// Restore finds out what the kernel can do, loads the records, and deletes the
// writable layers of an earlier boot, which has ended all their containers.
func (s *Store) Restore(report func(error)) error {
	dir, err := os.MkdirTemp(s.cfg.Stage, "probe-")
	if err != nil {
		return err
	}
	s.support, err = probe(dir)
	if err := errors.Join(err, s.cfg.Bin.Put(dir)); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("restore root file systems: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if err := s.restore(e.Name()); err != nil {
			report(fmt.Errorf("restore root file system %s: %w", e.Name(), err))
		}
	}
	return nil
}

// restore is called with mu held.
func (s *Store) restore(id string) error {
	if !ids.Valid(id) {
		return fmt.Errorf("no root file system has this name, it stays as it is: %w", errdefs.ErrInvalidArgument)
	}
	dir := filepath.Join(s.cfg.Dir, id)
	r, err := readRecord(dir, id)
	switch {
	case err == nil && r.BootID == s.cfg.BootID:
		s.all[id] = &entry{Record: r}
		return nil
	case err == nil:
		return s.cfg.Bin.Put(dir)
	}
	targets, merr := mountsOf(dir, id)
	if errors.Is(err, fs.ErrNotExist) && merr == nil && len(targets) == 0 {
		return s.cfg.Bin.Put(dir) // nothing is mounted before there is a record
	}
	// Kept, for Unmount or Sweep to remove.
	unknown := merr != nil || len(targets) > 0
	s.all[id] = &entry{Record: Record{ContainerID: id, Unreadable: unknown}}
	return errors.Join(err, merr)
}

func readRecord(dir, id string) (Record, error) {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("parse %s: %w: %w", recordFile, err, errdefs.ErrDataLoss)
	}
	if r.ContainerID != id {
		return Record{}, fmt.Errorf("record is of %q: %w", r.ContainerID, errdefs.ErrDataLoss)
	}
	return r, nil
}
