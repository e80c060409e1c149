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

// Restore loads the records.
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
		// Without a record it is still known, for Unmount or Sweep to remove.
		v.all[e.Name()] = records
	}
	return nil
}

// read returns the records of one container's volumes. A volume whose record
// cannot be read is among them if it is mounted, or if that cannot be found out.
// Without any answer from the file system, read returns nil and an error.
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
		case err == nil && r.BootID == v.boot:
			records[r.Index] = r
			continue
		case err == nil:
			continue
		}
		mounted, merr := volumeMounted(dir)
		if mounted || merr != nil {
			n, nerr := strconv.Atoi(e.Name())
			if nerr != nil {
				n = -1 - len(records)
			}
			records[n] = VolumeRecord{ContainerID: container, Index: n, Unreadable: true}
		} else if errors.Is(err, fs.ErrNotExist) {
			continue // nothing is mounted before there is a record
		}
		errs = append(errs, fmt.Errorf("volume %s: %w", e.Name(), errors.Join(err, merr)))
	}
	return records, errors.Join(errs...)
}

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
		return VolumeRecord{}, fmt.Errorf("record is of %q: %w", r.ContainerID, errdefs.ErrDataLoss)
	}
	return r, nil
}

// volumeMounted says whether anything is mounted in the directory of a volume.
func volumeMounted(dir string) (bool, error) {
	for _, name := range []string{volumeMount, volumeImage} {
		mounted, err := mountinfo.Mounted(filepath.Join(dir, name))
		if mounted || (err != nil && !errors.Is(err, fs.ErrNotExist)) {
			return mounted, err
		}
	}
	return false, nil
}

// Unmount removes all volumes of a container. That there are none is no error.
// What fails stays as it is, to be asked for again.
func (v *Volumes) Unmount(ctx context.Context, containerID string) error {
	v.mu.Lock()
	_, known := v.all[containerID]
	v.mu.Unlock()
	if !known {
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

// removeVolume unmounts and removes one volume. Nothing here descends into what
// may be mounted: directories go only when they are empty.
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

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Records returns all volumes.
func (v *Volumes) Records() []VolumeRecord {
	v.mu.Lock()
	defer v.mu.Unlock()
	var records []VolumeRecord
	for _, volumes := range v.all {
		records = slices.AppendSeq(records, maps.Values(volumes))
	}
	return records
}

// Sweep removes the volumes of containers that live does not know.
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
