package rootfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"

	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/mounttable"
)

// Restore detects the features of the kernel, loads the records, and deletes the writable layers of
// earlier boots, whose containers ended with the boot. It calls report for each record that cannot
// be read.
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

// restore loads the record of one container. The caller holds mu.
func (s *Store) restore(id string) error {
	if !ids.Valid(id) {
		return fmt.Errorf("name is not a container id, directory is kept: %w", errdefs.ErrInvalidArgument)
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
	targets, mountErr := findMounts(dir, id)
	if errors.Is(err, fs.ErrNotExist) && mountErr == nil && len(targets) == 0 {
		return s.cfg.Bin.Put(dir) // the record is written before the mount
	}
	// Unmount or Sweep removes the root file system.
	mayBeMounted := mountErr != nil || len(targets) > 0
	s.all[id] = &entry{Record: Record{ContainerID: id, Unreadable: mayBeMounted}}
	return errors.Join(err, mountErr)
}

// readRecord reads the record of a container.
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
		return Record{}, fmt.Errorf("record has container id %q: %w", r.ContainerID, errdefs.ErrDataLoss)
	}
	return r, nil
}

// findMounts returns the mount points of the root file system of a container whose record cannot be
// read, the last mount first. It searches for the writable layer in the mount options, and for the
// container id in the path of the mount point, because mount(2) gets the number of a descriptor as
// the writable layer.
func findMounts(dir, containerID string) ([]string, error) {
	upper := "upperdir=" + filepath.Join(dir, upperDir)
	found, err := mounttable.Read(func(i *mountinfo.Info) (skip, stop bool) {
		matches := slices.Contains(strings.Split(i.VFSOptions, ","), upper) ||
			slices.Contains(strings.Split(i.Mountpoint, "/"), containerID)
		return i.FSType != "overlay" || !strings.Contains(i.VFSOptions, "upperdir=") || !matches, false
	})
	if err != nil {
		return nil, fmt.Errorf("find mounts of container %q: %w", containerID, err)
	}
	targets := make([]string, 0, len(found))
	for _, i := range found {
		targets = append(targets, i.Mountpoint)
	}
	slices.Reverse(targets)
	return targets, nil
}
