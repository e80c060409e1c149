package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
)

// Restore loads the records. It calls report for each record that cannot be read.
func (v *Volumes) Restore(report func(error)) error {
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return fmt.Errorf("restore image volumes: %w", err)
	}
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return fmt.Errorf("restore image volumes: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range entries {
		records, err := v.read(e.Name())
		if err != nil {
			report(fmt.Errorf("restore image volumes of container %s: %w", e.Name(), err))
		}
		if records == nil {
			records = map[int]VolumeRecord{-1: {ContainerID: e.Name(), Index: -1, Unreadable: true}}
		}
		// A container without records is added too, so that Unmount or Sweep removes its directory.
		v.all[e.Name()] = records
	}
	return nil
}

// read returns the records of the volumes of one container, including a record with Unreadable for
// each volume whose record cannot be read and that may be mounted. If the directory of the
// container cannot be read, read returns nil and an error.
func (v *Volumes) read(container string) (map[int]VolumeRecord, error) {
	entries, err := os.ReadDir(filepath.Join(v.dir, container))
	if err != nil {
		return nil, err
	}
	records := make(map[int]VolumeRecord)
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(v.dir, container, e.Name())
		r, err := readVolume(dir, container)
		switch {
		case err == nil && r.BootID == v.bootID:
			records[r.Index] = r
			continue
		case err == nil:
			continue
		}
		mounted, mountErr := volumeMounted(dir)
		if mounted || mountErr != nil {
			n, parseErr := strconv.Atoi(e.Name())
			if parseErr != nil {
				n = -1 - len(records)
			}
			records[n] = VolumeRecord{ContainerID: container, Index: n, Unreadable: true}
		} else if errors.Is(err, fs.ErrNotExist) {
			continue // the record is written before the mount
		}
		errs = append(errs, fmt.Errorf("volume %s: %w", e.Name(), errors.Join(err, mountErr)))
	}
	return records, errors.Join(errs...)
}

// readVolume reads the record of a volume.
func readVolume(dir, container string) (VolumeRecord, error) {
	b, err := os.ReadFile(filepath.Join(dir, volumeRecord))
	if err != nil {
		return VolumeRecord{}, err
	}
	var r VolumeRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return VolumeRecord{}, fmt.Errorf("parse %s: %w: %w", volumeRecord, err, errdefs.ErrDataLoss)
	}
	if r.ContainerID != container {
		return VolumeRecord{}, fmt.Errorf("record has container id %q: %w", r.ContainerID, errdefs.ErrDataLoss)
	}
	return r, nil
}

// volumeMounted reports whether there is a mount in the directory of a volume.
func volumeMounted(dir string) (bool, error) {
	for _, name := range []string{volumeMount, volumeImage} {
		mounted, err := mountinfo.Mounted(filepath.Join(dir, name))
		if mounted || (err != nil && !errors.Is(err, fs.ErrNotExist)) {
			return mounted, err
		}
	}
	return false, nil
}

// Unmount removes all volumes of a container. It is not an error if there are none. If Unmount
// fails, the records are kept and the caller can call Unmount again.
func (v *Volumes) Unmount(ctx context.Context, containerID string) error {
	v.mu.Lock()
	_, ok := v.all[containerID]
	v.mu.Unlock()
	if !ok {
		return nil
	}
	unlock, err := v.ops.Lock(ctx, containerID)
	if err != nil {
		return err
	}
	defer unlock()
	top := filepath.Join(v.dir, containerID)
	entries, err := os.ReadDir(top)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, removeVolume(ctx, filepath.Join(top, e.Name())))
	}
	if err := errors.Join(append(errs, remove(top))...); err != nil {
		return fmt.Errorf("remove image volumes: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.all, containerID)
	return nil
}

// removeVolume unmounts and removes one volume. It removes only empty directories, so it never
// deletes files in a mount.
func removeVolume(ctx context.Context, dir string) error {
	for _, name := range []string{volumeMount, volumeImage} {
		if err := unmount(ctx, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if err := remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return remove(dir)
}

// remove removes a file or an empty directory, if it exists.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Records returns the records of all volumes.
func (v *Volumes) Records() []VolumeRecord {
	v.mu.Lock()
	defer v.mu.Unlock()
	var records []VolumeRecord
	for _, volumes := range v.all {
		records = slices.AppendSeq(records, maps.Values(volumes))
	}
	return records
}

// Sweep removes the volumes of the containers for which live returns false.
func (v *Volumes) Sweep(ctx context.Context, live func(containerID string) bool) error {
	v.mu.Lock()
	var dead []string
	for id := range v.all {
		if !live(id) {
			dead = append(dead, id)
		}
	}
	v.mu.Unlock()
	var errs []error
	for _, id := range dead {
		errs = append(errs, v.Unmount(ctx, id))
	}
	return errors.Join(errs...)
}
