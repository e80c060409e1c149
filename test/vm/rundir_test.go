package vm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// makeRunDir makes the directory of a running guest, with the guest's disks and console. The directory is removed
// at the end of the test. While the test runs, it holds a lock on the directory; a directory without a lock belongs
// to a run that was interrupted, and is removed here.
func makeRunDir(t *testing.T, guest string) (string, error) {
	cache := filepath.Join(top, ".cache", "vm")
	// This lock keeps other runs from removing the directory before it is locked.
	unlock, err := lockDir(cache, unix.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := removeAbandoned(cache); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(cache, "run-"+guest+"-")
	if err != nil {
		return "", err
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	release, err := lockDir(dir, unix.LOCK_EX)
	if err != nil {
		return "", err
	}
	t.Cleanup(release)
	return dir, nil
}

func removeAbandoned(cache string) error {
	dirs, err := filepath.Glob(filepath.Join(cache, "run-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		unlock, err := lockDir(dir, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = os.RemoveAll(dir)
		unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func lockDir(dir string, how int) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "lock", Path: dir, Err: err}
	}
	return func() { f.Close() }, nil
}
