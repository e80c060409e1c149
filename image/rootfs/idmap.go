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

// mountMapped mounts o for a user namespace. The layers are mapped in their
// mounts, and not one file of them is changed, so that all pods still share
// them. The writable layer is not mapped: what a container writes has on disk,
// too, the ids that its processes have on the host, and its root owns nothing
// there that the host's root does.
func (s support) mountMapped(o overlay, target string) (err error) {
	ns, err := os.Open(o.options.UserNS)
	if err != nil {
		return fmt.Errorf("user namespace: %w", err)
	}
	defer ns.Close()
	defer func() { closeAll(o.trees) }()
	for _, dir := range o.lower {
		tree, err := userns.MapMount(dir, ns, false)
		if err != nil {
			return fmt.Errorf("map the ids of a layer: %w", err)
		}
		o.trees = append(o.trees, tree)
	}
	if err := chownAs(o.upper, o.trees[0]); err != nil {
		return err
	}
	if s.lowerByFD && o.fits() {
		return s.mountNew(o, target)
	}
	return s.mountApart(o, target)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// chownAs gives a directory the owner that an open one shows. No link is
// followed, and the mode is left, as a directory has no setuid bit to lose.
func chownAs(dir string, as *os.File) error {
	if dir == "" {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(as.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	return os.Lchown(dir, int(st.Uid), int(st.Gid))
}

// mountApart mounts o where the kernel takes as lower layers only mounts that
// are attached in the caller's own mount namespace, before Linux 6.13: so they
// are, in one that is given up right after, and with it everything that was made
// in it. Only the result is brought home.
func (s support) mountApart(o overlay, target string) error {
	return osthread.Run(func() error {
		home, err := os.Open("/proc/thread-self/ns/mnt")
		if err != nil {
			return err
		}
		defer home.Close()
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		fd, err := s.assemble(o, target)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("go back to the mount namespace: %w", err)
		}
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("move_mount to %s: %w", target, err)
		}
		return nil
	})
}

// assemble mounts o in the calling thread's mount namespace, in a scratch
// directory that covers at, and returns it as a mount that is attached nowhere.
func (s support) assemble(o overlay, at string) (fd int, err error) {
	if err := unix.Mount("layers", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
		return -1, fmt.Errorf("mount tmpfs: %w", err)
	}
	if err := unix.Chdir(at); err != nil {
		return -1, err
	}
	names := make([]string, len(o.trees))
	for i, tree := range o.trees {
		names[i] = strconv.Itoa(i)
		if err := os.Mkdir(names[i], 0o700); err != nil {
			return -1, err
		}
		if err := unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, names[i], unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return -1, fmt.Errorf("attach a mapped layer: %w", err)
		}
	}
	const merged = "merged"
	if err := os.Mkdir(merged, 0o700); err != nil {
		return -1, err
	}
	data, flags := s.oldOptions(o, names), uintptr(0)
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

// tryTrees says whether overlay takes layers as descriptors of mounts.
func tryTrees(o overlay, target string) bool {
	defer func() { closeAll(o.trees) }()
	for _, dir := range o.lower {
		fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return false
		}
		o.trees = append(o.trees, os.NewFile(uintptr(fd), dir))
	}
	return support{lowerByOne: true}.try(o, target) == nil
}

// Trial mounts an overlay for a user namespace at target, an existing directory,
// with everything else of it in dir, which is empty and on the file system that
// layers are on. It is for finding out whether that can be done. The caller
// unmounts target.
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
		return fmt.Errorf("overlay for a user namespace on the file system of %s: %w", dir, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(target, &st); err != nil || st.Uid == 0 {
		return errors.Join(fmt.Errorf("overlay on the file system of %s does not map ids", dir), err)
	}
	return nil
}
