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

// Options are the options of a mount. The zero value means a mount without a security label and
// without mapped ids.
type Options struct {
	// MountLabel is the SELinux context of all files, or "".
	MountLabel string
	// UserNS is the path of the user namespace of the container, in which the files belong to the
	// owners in the image. It is "" if the container has no user namespace. See mountMapped.
	UserNS string
}

// overlay is an overlay mount. Without upper and work, it is read-only and mounted with nosuid and nodev.
type overlay struct {
	lower       []string   // topmost first
	trees       []*os.File // detached mounts of the lower layers with mapped ids, or nil
	upper, work string
	options     Options
}

// overlaySupport is the overlay support of the kernel. probe detects it once.
type overlaySupport struct {
	lowerByOne bool // fsconfig(2) accepts lower layers one by one, since Linux 6.7
	lowerByFD  bool // fsconfig(2) accepts descriptors of detached mounts as lower layers, since Linux 6.13
	// volatile means that overlay does not sync files to disk, since Linux 5.10.
	volatile bool
	// off are the features that the kernel has and that are set to "off".
	off []string
}

// features are features that must be off, also if the kernel module enables them by default. Layers
// are not trusted, and with metacopy and redirect_dir a file or directory in a layer can stand for
// another one. index does not allow a lower layer in several mounts. nfs_export needs index, so it
// is off too.
var features = []string{"metacopy", "redirect_dir", "index"}

// fsconfigMax is the maximum length of a string for fsconfig(2) in bytes.
const fsconfigMax = 255

// mount mounts o at target. If mount returns an error, nothing is mounted.
func (s overlaySupport) mount(o overlay, target string) error {
	if o.options.UserNS != "" {
		return s.mountMapped(o, target)
	}
	if s.lowerByOne && o.fitsFsconfig() {
		return s.mountByFsconfig(o, target)
	}
	return s.mountByMount2(o, target)
}

// fitsFsconfig reports whether fsconfig(2) accepts all strings of o.
func (o overlay) fitsFsconfig() bool {
	for _, dir := range o.lower {
		if len(dir) > fsconfigMax {
			return false
		}
	}
	return len(o.upper) <= fsconfigMax && len(o.work) <= fsconfigMax && len(o.options.MountLabel) <= fsconfigMax
}

// mountByFsconfig mounts o with the mount API of fsopen(2) and fsconfig(2).
func (s overlaySupport) mountByFsconfig(o overlay, target string) error {
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

// create creates a detached mount.
func (s overlaySupport) create(o overlay) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	if err := s.configure(fs, o); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create overlay: %w%s", err, kernelMessages(fs))
	}
	attr := 0
	if o.upper == "" {
		attr = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return -1, fmt.Errorf("fsmount overlay: %w%s", err, kernelMessages(fs))
	}
	return fd, nil
}

// configure sets the options of o.
func (s overlaySupport) configure(fs int, o overlay) error {
	for i, dir := range o.lower {
		add := func() error { return unix.FsconfigSetString(fs, "lowerdir+", dir) }
		if o.trees != nil {
			add = func() error { return unix.FsconfigSetFd(fs, "lowerdir+", int(o.trees[i].Fd())) }
		}
		if err := add(); err != nil {
			return fmt.Errorf("set overlay lower directory %s: %w%s", dir, err, kernelMessages(fs))
		}
	}
	for _, kv := range s.settings(o) {
		key, value, hasValue := strings.Cut(kv, "=")
		set := func() error { return unix.FsconfigSetFlag(fs, key) }
		if hasValue {
			set = func() error { return unix.FsconfigSetString(fs, key, value) }
		}
		if err := set(); err != nil {
			return fmt.Errorf("set overlay option %s: %w%s", kv, err, kernelMessages(fs))
		}
	}
	return nil
}

// settings returns all mount options except the lower directories, in the form for fsconfig(2), in
// which the label is not quoted.
func (s overlaySupport) settings(o overlay) []string {
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

// kernelMessages returns the messages of the kernel about a failed step, in parentheses, or "".
func kernelMessages(fs int) string {
	var messages []string
	for buf := make([]byte, 1024); len(messages) < 8; {
		n, err := unix.Read(fs, buf)
		if err != nil || n <= 0 {
			break
		}
		messages = append(messages, strings.TrimSpace(string(buf[:n])))
	}
	if len(messages) == 0 {
		return ""
	}
	return " (" + strings.Join(messages, "; ") + ")"
}

// mountByMount2 mounts o with mount(2), whose options must fit in one page. So the name of each
// directory is the number of an open descriptor, and the working directory of the mounting thread
// is /proc/self/fd. The options for hundreds of layers have less than 3 KB, for paths of any
// length.
func (s overlaySupport) mountByMount2(o overlay, target string) error {
	var open []*os.File
	defer func() {
		for _, f := range open {
			_ = f.Close()
		}
	}()
	openDir := func(dir string) (string, error) {
		f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		open = append(open, f)
		return strconv.Itoa(int(f.Fd())), nil
	}
	var lower []string
	for _, dir := range o.lower {
		name, err := openDir(dir)
		if err != nil {
			return err
		}
		lower = append(lower, name)
	}
	if o.upper != "" {
		var upperErr, workErr error
		o.upper, upperErr = openDir(o.upper)
		o.work, workErr = openDir(o.work)
		if err := errors.Join(upperErr, workErr); err != nil {
			return err
		}
	}
	data := s.mount2Options(o, lower)
	flags := uintptr(0)
	if o.upper == "" {
		flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	}
	return inFDDirectory(func() error {
		if err := unix.Mount("overlay", target, "overlay", flags, data); err != nil {
			return fmt.Errorf("mount overlay of %d layers at %s: %w", len(lower), target, err)
		}
		return nil
	})
}

// mount2Options returns the options of o for mount(2): one string with the names of the lower
// directories, in which the label is quoted.
func (s overlaySupport) mount2Options(o overlay, lower []string) string {
	label := o.options.MountLabel
	o.options.MountLabel = ""
	all := append(s.settings(o)[1:], "lowerdir="+strings.Join(lower, ":")) // without source
	if label != "" {
		all = append(all, mountopt.Context(label))
	}
	return strings.Join(all, ",")
}

// inFDDirectory runs fn on a thread whose working directory is /proc/self/fd.
func inFDDirectory(fn func() error) error {
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
