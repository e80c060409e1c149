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

// Volumes mounts images read-only, for containers to have them as volumes. A
// volume has nothing that is written to, so all that is kept of it lies on a
// file system that a reboot empties.
type Volumes struct {
	dir    string // volumes by container and index
	boot   string
	kernel *Store // knows what overlay can do
	ops    oplock.Locks

	mu  sync.Mutex                      // guards all; taken after a lock of ops
	all map[string]map[int]VolumeRecord // by container and index
}

// VolumeRecord is what is kept of a volume. It is written before anything is
// mounted.
type VolumeRecord struct {
	ContainerID string `json:"containerID"`
	Index       int    `json:"index"`
	ImageID     string `json:"imageID"`
	// Layers are the diff IDs of the image's layers. Records of older versions
	// do not have them.
	Layers []string `json:"layers,omitempty"`
	BootID string   `json:"bootID"`
	// Unreadable says that the record on disk cannot be read and that the volume
	// is, or may be, mounted. The image is unknown.
	Unreadable bool `json:"-"`
}

// VolumeRequest asks for a volume.
type VolumeRequest struct {
	ContainerID string   // a full id
	Index       int      // of the volume among the container's, 0 or more
	ImageID     string   // noted, not looked at
	Layers      []string // diff IDs, likewise
	Lower       []string // the directories to mount, topmost first
	// SubPath is what of the image to mount, a directory or a regular file; "" for
	// all of it. Links in it lead where they would with the image as root.
	SubPath string
	Options Options
}

// Names in the directory of a volume.
const (
	volumeMount  = "mount" // what the container gets
	volumeImage  = "image" // the whole image, while its sub path is looked up
	volumeBase   = "base"  // empty; read-only, overlay wants two lower directories
	volumeRecord = "volume.json"
)

// NewVolumes returns volumes below dir, on a file system that a reboot empties.
// See Restore. store has been restored before.
func NewVolumes(dir, bootID string, store *Store) *Volumes {
	return &Volumes{dir: dir, boot: bootID, kernel: store, all: make(map[string]map[int]VolumeRecord)}
}

// Mount mounts a volume and returns where. What an earlier try has left is
// removed first. Errors: ErrNotFound and ErrInvalidArgument for the sub path.
func (v *Volumes) Mount(ctx context.Context, req VolumeRequest) (path string, err error) {
	if !ids.Valid(req.ContainerID) || req.Index < 0 {
		return "", fmt.Errorf("volume %d of container %q: %w", req.Index, req.ContainerID, errdefs.ErrInvalidArgument)
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
		return "", fmt.Errorf("remove what is left of an earlier try: %w", err)
	}
	if err := v.note(dir, req); err != nil {
		return "", err
	}
	if err := v.mount(dir, req); err != nil {
		return "", errors.Join(err, v.drop(context.WithoutCancel(ctx), req.ContainerID, req.Index))
	}
	return filepath.Join(dir, volumeMount), nil
}

// note writes the record of what is about to be mounted.
func (v *Volumes) note(dir string, req VolumeRequest) error {
	r := VolumeRecord{ContainerID: req.ContainerID, Index: req.Index, ImageID: req.ImageID, Layers: req.Layers, BootID: v.boot}
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
		return errors.Join(os.Mkdir(target, 0o700), v.kernel.support.mount(o, target))
	}
	if err := os.Mkdir(image, 0o700); err != nil {
		return err
	}
	if err := v.kernel.support.mount(o, image); err != nil {
		return err
	}
	if err := bindInside(image, req.SubPath, target); err != nil {
		return err
	}
	// The file system lives on in what is mounted of it. Detaching hides nothing
	// therefore, and does not fail because somebody just looks at the mounts.
	return errors.Join(unix.Unmount(image, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH), os.Remove(image))
}

// bindInside mounts what path means below root at target, which is made as a
// file or a directory like it.
func bindInside(root, path, target string) error {
	f, err := rootpath.Open(root, path, unix.O_PATH, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("sub path %q is not in the image: %w", path, errdefs.ErrNotFound)
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

// drop removes one volume. If it cannot, the volume is still known.
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
