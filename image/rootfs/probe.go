package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/osthread"
)

// probe detects the overlay support of the kernel. It creates detached mounts, or, if the kernel
// cannot create them, mounts in a separate mount namespace. dir is an empty directory on the file
// system of the layers.
func probe(dir string) (overlaySupport, error) {
	o := overlay{
		lower: []string{filepath.Join(dir, "l1"), filepath.Join(dir, "l2")},
		upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work"),
	}
	target := filepath.Join(dir, "target")
	for _, d := range append([]string{o.upper, o.work, target}, o.lower...) {
		if err := os.Mkdir(d, 0o700); err != nil {
			return overlaySupport{}, fmt.Errorf("probe overlay: %w", err)
		}
	}
	s := overlaySupport{lowerByOne: true}
	try := func(s overlaySupport) error { return s.try(o, target) }
	if err := try(s); err != nil {
		s.lowerByOne = false
		if mount2Err := try(s); mount2Err != nil {
			return overlaySupport{}, fmt.Errorf("probe overlay in %s: %w", dir, errors.Join(err, mount2Err))
		}
	}
	s.volatile = true
	s.volatile = try(s) == nil
	// Overlay refuses a work directory that was used with volatile before.
	if err := os.RemoveAll(o.work); err != nil {
		return overlaySupport{}, err
	}
	if err := os.Mkdir(o.work, 0o700); err != nil {
		return overlaySupport{}, err
	}
	s.lowerByFD = s.lowerByOne && tryDetachedLayers(o, target)
	for _, name := range features {
		with := overlaySupport{lowerByOne: s.lowerByOne, off: []string{name}}
		if try(with) == nil {
			s.off = append(s.off, name)
		}
	}
	return s, nil
}

// try reports whether overlay accepts the options of s, by mounting o.
func (s overlaySupport) try(o overlay, target string) error {
	if s.lowerByOne {
		fd, err := s.create(o)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
	return inMountNamespace(func() error { return s.tryMount2(o, target) })
}

// tryMount2 mounts o with mount(2) and unmounts it. The directories of o are in the directory of
// target. mount(2) gets their names relative to that directory, whose path can have characters with
// a meaning for overlay.
func (s overlaySupport) tryMount2(o overlay, target string) error {
	if err := unix.Chdir(filepath.Dir(target)); err != nil {
		return err
	}
	var lower []string
	for _, dir := range o.lower {
		lower = append(lower, filepath.Base(dir))
	}
	o.upper, o.work, target = filepath.Base(o.upper), filepath.Base(o.work), filepath.Base(target)
	if err := unix.Mount("overlay", target, "overlay", 0, s.mount2Options(o, lower)); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return unix.Unmount(target, 0)
}

// inMountNamespace runs fn in a new mount namespace, which ends with the thread, so that a daemon
// that is killed during fn leaves no mount behind.
func inMountNamespace(fn func() error) error {
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
