package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/oplock"
	"github.com/criserver/criserver/internal/rootpath"
)

// Volumes mounts images read-only as volumes of containers. A volume has no writable layer, so its
// directory is on a file system that a reboot empties.
type Volumes struct {
	dir    string // directories of the volumes, CONTAINER/INDEX
	bootID string
	store  *Store       // has detected the overlay support of the kernel
	ops    oplock.Locks // by container id

	mu  sync.Mutex                      // guards all; taken after a lock of ops
	all map[string]map[int]VolumeRecord // by container id and index
}

// VolumeRecord is the record of a volume on disk. It is written before the mount.
type VolumeRecord struct {
	ContainerID string `json:"containerID"`
	Index       int    `json:"index"`
	ImageID     string `json:"imageID"`
	// Layers are the diff IDs of the image's layers. Records of older versions do not have this field.
	Layers []string `json:"layers,omitempty"`
	BootID string   `json:"bootID"`
	// Unreadable reports that the record on disk cannot be read and that the volume may be mounted.
	// The image is unknown.
	Unreadable bool `json:"-"`
}

// VolumeRequest is a request for a volume.
type VolumeRequest struct {
	ContainerID string   // a complete id
	Index       int      // of the volume in the container, 0 or more
	ImageID     string   // only for the record
	Layers      []string // diff IDs, only for the record
	Lower       []string // the directories of the layers, topmost first
	// SubPath is a directory or a regular file of the image that is mounted, or "" for the complete
	// image. Symbolic links are resolved with the image as the root directory.
	SubPath string
	Options Options
}

// Names in the directory of a volume.
const (
	volumeMount  = "mount" // the mount point of the volume
	volumeImage  = "image" // the mount point of the complete image while the sub path is resolved
	volumeBase   = "base"  // empty; a read-only overlay needs two lower directories
	volumeRecord = "volume.json"
)

// NewVolumes returns the volumes below dir, which must be on a file system that a reboot empties.
// The caller must restore first store and then the volumes, before anything else.
func NewVolumes(dir, bootID string, store *Store) *Volumes {
	return &Volumes{dir: dir, bootID: bootID, store: store, all: make(map[string]map[int]VolumeRecord)}
}

// Mount mounts a volume and returns its mount point. It first removes the leftovers of an earlier
// attempt. It returns ErrNotFound or ErrInvalidArgument for a wrong sub path.
func (v *Volumes) Mount(ctx context.Context, req VolumeRequest) (path string, err error) {
	if !ids.Valid(req.ContainerID) || req.Index < 0 {
		return "", fmt.Errorf("invalid volume %d of container %q: %w", req.Index, req.ContainerID, errdefs.ErrInvalidArgument)
	}
	if len(req.Lower) == 0 {
		return "", fmt.Errorf("image has no layers: %w", errdefs.ErrFailedPrecondition)
	}
	unlock, err := v.ops.Lock(ctx, req.ContainerID)
	if err != nil {
		return "", err
	}
	defer unlock()
	dir := v.path(req.ContainerID, req.Index)
	if err := removeVolume(ctx, dir); err != nil {
		return "", fmt.Errorf("remove leftovers of an earlier attempt: %w", err)
	}
	if err := v.writeRecord(dir, req); err != nil {
		return "", err
	}
	if err := v.mount(dir, req); err != nil {
		return "", errors.Join(err, v.drop(context.WithoutCancel(ctx), req.ContainerID, req.Index))
	}
	return filepath.Join(dir, volumeMount), nil
}

// writeRecord adds and writes the record of a volume that is about to be mounted.
func (v *Volumes) writeRecord(dir string, req VolumeRequest) error {
	r := VolumeRecord{ContainerID: req.ContainerID, Index: req.Index, ImageID: req.ImageID, Layers: req.Layers, BootID: v.bootID}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	v.mu.Lock()
	if v.all[r.ContainerID] == nil {
		v.all[r.ContainerID] = make(map[int]VolumeRecord)
	}
	v.all[r.ContainerID][r.Index] = r
	v.mu.Unlock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, volumeRecord), b, 0o600)
}

// mount mounts the image, or its sub path.
func (v *Volumes) mount(dir string, req VolumeRequest) error {
	base, image, target := filepath.Join(dir, volumeBase), filepath.Join(dir, volumeImage), filepath.Join(dir, volumeMount)
	o := overlay{lower: req.Lower, options: req.Options}
	if len(o.lower) == 1 {
		if err := os.Mkdir(base, 0o755); err != nil {
			return err
		}
		o.lower = []string{req.Lower[0], base}
	}
	if strings.Trim(req.SubPath, "/") == "" {
		return errors.Join(os.Mkdir(target, 0o700), v.store.support.mount(o, target))
	}
	if err := os.Mkdir(image, 0o700); err != nil {
		return err
	}
	if err := v.store.support.mount(o, image); err != nil {
		return err
	}
	if err := bindSubPath(image, req.SubPath, target); err != nil {
		return err
	}
	// The file system stays mounted at target, so that detaching the mount hides nothing. Unlike
	// unmounting, detaching does not fail if another process accesses the mount.
	return errors.Join(unix.Unmount(image, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH), os.Remove(image))
}

// bindSubPath mounts path below root at target. It creates target as a file or a directory, like path.
func bindSubPath(root, path, target string) error {
	f, err := rootpath.Open(root, path, unix.O_PATH, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("sub path %q does not exist in the image: %w", path, errdefs.ErrNotFound)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("sub path %q has too many symbolic links: %w", path, errdefs.ErrInvalidArgument)
	case err != nil:
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		err = os.Mkdir(target, 0o700)
	case info.Mode().IsRegular():
		err = os.WriteFile(target, nil, 0o600)
	default:
		err = fmt.Errorf("sub path %q is neither a directory nor a regular file: %w", path, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind sub path %q: %w", path, err)
	}
	return nil
}

// drop removes one volume. If drop fails, the record is kept.
func (v *Volumes) drop(ctx context.Context, containerID string, index int) error {
	if err := removeVolume(ctx, v.path(containerID, index)); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.all[containerID], index)
	if len(v.all[containerID]) > 0 {
		return nil
	}
	delete(v.all, containerID)
	return remove(filepath.Join(v.dir, containerID))
}

func (v *Volumes) path(containerID string, index int) string {
	return filepath.Join(v.dir, containerID, strconv.Itoa(index))
}
