package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/mountopt"
	"github.com/criserver/criserver/internal/osthread"
)

// Options are what can be asked of a mount. The zero value is a writable mount
// without a security label.
type Options struct {
	// MountLabel is the SELinux context of all files, or "".
	MountLabel string
	// UserNS is the path of a user namespace in which the files are to belong to
	// whom the image says; "" is the host's. See mountMapped.
	UserNS string
}

// overlay is one mount to be made. Without upper and work it is read-only, and
// nothing in it can be a device or give privileges.
type overlay struct {
	lower       []string   // topmost first
	trees       []*os.File // the lower layers, mapped; nil for as they are
	upper, work string
	options     Options
}

// support is what the kernel can do, found out once.
type support struct {
	lowerByOne bool // the new mount API takes lower layers one by one; Linux 6.7
	lowerByFD  bool // and as descriptors of mounts that are attached nowhere; Linux 6.13
	// volatile keeps fsync and the like from reaching the disk; Linux 5.10.
	volatile bool
	// off are the features that are known and set to "off".
	off []string
}

// features that shall be off whatever the module's defaults are. Layers come
// from strangers, and metacopy and redirect make files and directories in them
// stand for others; index and nfs_export forbid what is done here, to use one
// lower layer in many mounts, or cost a copy of each directory entry.
var features = []string{"metacopy", "redirect_dir", "index"}

// fsconfigMax is the length of a string that fsconfig(2) takes, less one.
const fsconfigMax = 255

// mount mounts o at target. On any error nothing is mounted.
func (s support) mount(o overlay, target string) error {
	if o.options.UserNS != "" {
		return s.mountMapped(o, target)
	}
	if s.lowerByOne && o.fits() {
		return s.mountNew(o, target)
	}
	return s.mountOld(o, target)
}

func (o overlay) fits() bool {
	for _, dir := range o.lower {
		if len(dir) > fsconfigMax {
			return false
		}
	}
	return len(o.upper) <= fsconfigMax && len(o.work) <= fsconfigMax && len(o.options.MountLabel) <= fsconfigMax
}

func (s support) mountNew(o overlay, target string) error {
	fd, err := s.create(o)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount to %s: %w", target, err)
	}
	return nil
}

// create makes the mount without a place in the file system yet.
func (s support) create(o overlay) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	if err := s.configure(fs, o); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create overlay: %w%s", err, kernelSays(fs))
	}
	attr := 0
	if o.upper == "" {
		attr = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return -1, fmt.Errorf("fsmount overlay: %w%s", err, kernelSays(fs))
	}
	return fd, nil
}

func (s support) configure(fs int, o overlay) error {
	for i, dir := range o.lower {
		add := func() error { return unix.FsconfigSetString(fs, "lowerdir+", dir) }
		if o.trees != nil {
			add = func() error { return unix.FsconfigSetFd(fs, "lowerdir+", int(o.trees[i].Fd())) }
		}
		if err := add(); err != nil {
			return fmt.Errorf("overlay lower directory %s: %w%s", dir, err, kernelSays(fs))
		}
	}
	for _, kv := range s.settings(o) {
		key, value, hasValue := strings.Cut(kv, "=")
		set := func() error { return unix.FsconfigSetFlag(fs, key) }
		if hasValue {
			set = func() error { return unix.FsconfigSetString(fs, key, value) }
		}
		if err := set(); err != nil {
			return fmt.Errorf("overlay option %s: %w%s", kv, err, kernelSays(fs))
		}
	}
	return nil
}

// settings returns all mount options except the lower directories, in the form of
// fsconfig(2): the label is not quoted.
func (s support) settings(o overlay) []string {
	all := []string{"source=overlay"}
	for _, name := range s.off {
		all = append(all, name+"=off")
	}
	if o.upper != "" {
		all = append(all, "upperdir="+o.upper, "workdir="+o.work)
		if s.volatile {
			all = append(all, "volatile")
		}
	}
	if o.options.MountLabel != "" {
		all = append(all, mountopt.ContextKey+"="+o.options.MountLabel)
	}
	return all
}

// kernelSays returns the messages that a failed step has left.
func kernelSays(fs int) string {
	var said []string
	for buf := make([]byte, 1024); len(said) < 8; {
		n, err := unix.Read(fs, buf)
		if err != nil || n <= 0 {
			break
		}
		said = append(said, strings.TrimSpace(string(buf[:n])))
	}
	if len(said) == 0 {
		return ""
	}
	return " (" + strings.Join(said, "; ") + ")"
}

// mountOld mounts through mount(2), whose options must fit in one page. So each
// directory is named by the number of an open descriptor, and the mount is made
// by a thread whose working directory has these names: hundreds of layers take
// less than 3 KB, however long their paths are.
func (s support) mountOld(o overlay, target string) error {
	var open []*os.File
	defer func() {
		for _, f := range open {
			_ = f.Close()
		}
	}()
	short := func(dir string) (string, error) {
		f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		open = append(open, f)
		return strconv.Itoa(int(f.Fd())), nil
	}
	var lower []string
	for _, dir := range o.lower {
		name, err := short(dir)
		if err != nil {
			return err
		}
		lower = append(lower, name)
	}
	if o.upper != "" {
		var uerr, werr error
		o.upper, uerr = short(o.upper)
		o.work, werr = short(o.work)
		if err := errors.Join(uerr, werr); err != nil {
			return err
		}
	}
	data := s.oldOptions(o, lower)
	flags := uintptr(0)
	if o.upper == "" {
		flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	}
	return onDescriptors(func() error {
		if err := unix.Mount("overlay", target, "overlay", flags, data); err != nil {
			return fmt.Errorf("mount overlay of %d layers at %s: %w", len(lower), target, err)
		}
		return nil
	})
}

// oldOptions returns the options of o for mount(2): one string, with the names of the
// lower directories, in which the label is quoted.
func (s support) oldOptions(o overlay, lower []string) string {
	label := o.options.MountLabel
	o.options.MountLabel = ""
	all := append(s.settings(o)[1:], "lowerdir="+strings.Join(lower, ":")) // without source
	if label != "" {
		all = append(all, mountopt.Context(label))
	}
	return strings.Join(all, ",")
}

// onDescriptors runs fn in the directory of the process's descriptors.
func onDescriptors(fn func() error) error {
	return osthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare working directory: %w", err)
		}
		if err := unix.Chdir("/proc/self/fd"); err != nil {
			return err
		}
		return fn()
	})
}
