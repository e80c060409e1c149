package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/osthread"
	"github.com/criserver/criserver/internal/userns"
)

// mountMapped mounts o for a user namespace. It maps the ids of the layers in their mounts. The files of the
// layers do not change, so all pods share them. The writable layer is not mapped: the files that a container
// writes have on disk the ids that its processes have on the host, so they never belong to the host's root.
func (s overlaySupport) mountMapped(o overlay, target string) (err error) {
	ns, err := os.Open(o.options.UserNS)
	if err != nil {
		return fmt.Errorf("open user namespace: %w", err)
	}
	defer ns.Close()
	defer func() { closeAll(o.trees) }()
	for _, dir := range o.lower {
		tree, err := userns.MapMount(dir, ns, false)
		if err != nil {
			return fmt.Errorf("map ids of layer %s: %w", dir, err)
		}
		o.trees = append(o.trees, tree)
	}
	if err := copyOwner(o.upper, o.trees[0]); err != nil {
		return err
	}
	if s.lowerByFD && o.fitsFsconfig() {
		return s.mountByFsconfig(o, target)
	}
	return s.mountInNamespace(o, target)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// copyOwner gives a directory the owner of an open directory. It does not follow symbolic links. A
// change of the owner does not change the mode of a directory.
func copyOwner(dir string, from *os.File) error {
	if dir == "" {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	return os.Lchown(dir, int(st.Uid), int(st.Gid))
}

// mountInNamespace mounts o on kernels before Linux 6.13, which accept only mounts of the caller's
// mount namespace as lower layers. It attaches the mapped layers in a new mount namespace, which
// ends with the thread, and moves only the overlay mount to the namespace of the process.
func (s overlaySupport) mountInNamespace(o overlay, target string) error {
	return osthread.Run(func() error {
		processNS, err := os.Open("/proc/thread-self/ns/mnt")
		if err != nil {
			return err
		}
		defer processNS.Close()
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		fd, err := s.mountInScratch(o, target)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Setns(int(processNS.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("return to the mount namespace of the process: %w", err)
		}
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("move_mount to %s: %w", target, err)
		}
		return nil
	})
}

// mountInScratch mounts o in the mount namespace of the calling thread, below a tmpfs that it
// mounts at target. It returns the overlay as a detached mount.
func (s overlaySupport) mountInScratch(o overlay, target string) (fd int, err error) {
	if err := unix.Mount("layers", target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
		return -1, fmt.Errorf("mount tmpfs: %w", err)
	}
	if err := unix.Chdir(target); err != nil {
		return -1, err
	}
	names := make([]string, len(o.trees))
	for i, tree := range o.trees {
		names[i] = strconv.Itoa(i)
		if err := os.Mkdir(names[i], 0o700); err != nil {
			return -1, err
		}
		if err := unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, names[i], unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return -1, fmt.Errorf("attach mapped layer: %w", err)
		}
	}
	const merged = "merged"
	if err := os.Mkdir(merged, 0o700); err != nil {
		return -1, err
	}
	data, flags := s.mount2Options(o, names), uintptr(0)
	if o.upper == "" {
		flags = unix.MS_RDONLY
	}
	if err := unix.Mount("overlay", merged, "overlay", flags, data); err != nil {
		return -1, fmt.Errorf("mount overlay of %d mapped layers: %w", len(names), err)
	}
	if fd, err = unix.OpenTree(unix.AT_FDCWD, merged, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC); err != nil {
		return -1, fmt.Errorf("open_tree: %w", err)
	}
	return fd, nil
}

// tryDetachedLayers reports whether overlay accepts descriptors of detached mounts as lower layers.
func tryDetachedLayers(o overlay, target string) bool {
	defer func() { closeAll(o.trees) }()
	for _, dir := range o.lower {
		fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return false
		}
		o.trees = append(o.trees, os.NewFile(uintptr(fd), dir))
	}
	return overlaySupport{lowerByOne: true}.try(o, target) == nil
}

// Trial mounts an overlay for a user namespace at target, an existing directory, to find out
// whether the kernel and the file system support that. dir is an empty directory on the file system
// of the layers. The caller unmounts target.
func Trial(dir, target, userNS string) error {
	for _, d := range []string{"probe", "lower", upperDir, workDir} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	s, err := probe(filepath.Join(dir, "probe"))
	if err != nil {
		return err
	}
	err = s.mount(overlay{
		lower: []string{filepath.Join(dir, "lower")}, upper: filepath.Join(dir, upperDir), work: filepath.Join(dir, workDir),
		options: Options{UserNS: userNS},
	}, target)
	if err != nil {
		return fmt.Errorf("mount overlay for a user namespace on the file system of %s: %w", dir, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(target, &st); err != nil || st.Uid == 0 {
		return errors.Join(fmt.Errorf("overlay on the file system of %s does not map ids", dir), err)
	}
	return nil
}
