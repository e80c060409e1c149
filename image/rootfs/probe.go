package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/osthread"
)

// probe finds out what the kernel's overlay can do, by mounting one that is not
// attached anywhere, or, where that cannot be done, in dir, which is empty.
func probe(dir string) (support, error) {
	o := overlay{
		lower: []string{filepath.Join(dir, "l1"), filepath.Join(dir, "l2")},
		upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work"),
	}
	target := filepath.Join(dir, "target")
	for _, d := range append([]string{o.upper, o.work, target}, o.lower...) {
		if err := os.Mkdir(d, 0o700); err != nil {
			return support{}, fmt.Errorf("probe overlay: %w", err)
		}
	}
	s := support{lowerByOne: true}
	try := func(s support) error { return s.try(o, target) }
	if err := try(s); err != nil {
		s.lowerByOne = false
		if old := try(s); old != nil {
			return support{}, fmt.Errorf("probe overlay in %s: %w", dir, errors.Join(err, old))
		}
	}
	s.volatile = true
	s.volatile = try(s) == nil
	// What volatile leaves in the work directory forbids its use ever after.
	if err := os.RemoveAll(o.work); err != nil {
		return support{}, err
	}
	if err := os.Mkdir(o.work, 0o700); err != nil {
		return support{}, err
	}
	s.lowerByFD = s.lowerByOne && tryTrees(o, target)
	for _, name := range features {
		with := support{lowerByOne: s.lowerByOne, off: []string{name}}
		if try(with) == nil {
			s.off = append(s.off, name)
		}
	}
	return s, nil
}

func (s support) try(o overlay, target string) error {
	if s.lowerByOne {
		fd, err := s.create(o)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
	return inOwnMounts(func() error { return s.tryOld(o, target) })
}

// tryOld mounts with mount(2) and unmounts. The directories of o are beside
// target, and mount(2) gets their names without the way to them, which may have
// characters that overlay gives a meaning.
func (s support) tryOld(o overlay, target string) error {
	if err := unix.Chdir(filepath.Dir(target)); err != nil {
		return err
	}
	var lower []string
	for _, dir := range o.lower {
		lower = append(lower, filepath.Base(dir))
	}
	o.upper, o.work, target = filepath.Base(o.upper), filepath.Base(o.work), filepath.Base(target)
	if err := unix.Mount("overlay", target, "overlay", 0, s.oldOptions(o, lower)); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return unix.Unmount(target, 0)
}

// inOwnMounts runs fn in a mount namespace that ends with the process at the
// latest, so that a daemon that is killed during fn leaves no mount behind.
func inOwnMounts(fn func() error) error {
	return osthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		return fn()
	})
}
