// Package atomicfile replaces files atomically: a reader sees either the old or the new
// content, and a crash leaves one of the two. A crash may also leave a temporary file, which RemoveTemporary removes.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// temporaryInfix is a part of the names of temporary files. A temporary file of "state" is ".state.criserver-NUMBER".
const temporaryInfix = ".criserver-"

// Write writes data to a temporary file in the same directory and renames the file to
// path. It does not sync the file, because state on tmpfs does not survive a power cut.
func Write(path string, data []byte, perm os.FileMode) error {
	return write(path, data, perm, false)
}

// WriteSync is Write for a file that must survive a power cut: it syncs the file before
// the rename and the directory after the rename.
func WriteSync(path string, data []byte, perm os.FileMode) error {
	if err := write(path, data, perm, true); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir syncs a directory, so that its entries survive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// RemoveTemporary removes the temporary files that killed processes have left in a directory. The caller ensures that
// no process writes a file of the directory at the same time. A directory that does not exist is not an error.
func RemoveTemporary(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name()[0] == '.' && strings.Contains(e.Name(), temporaryInfix) && e.Type().IsRegular() {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

func write(path string, data []byte, perm os.FileMode, sync bool) error {
	f, err := createTemporary(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = errors.Join(writeTo(f, data, perm, sync), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

func createTemporary(path string) (*os.File, error) {
	return os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+temporaryInfix+"*")
}

// writeTo writes the content and the mode of a file, and syncs the file if sync is set.
func writeTo(f *os.File, data []byte, perm os.FileMode, sync bool) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if sync {
		return f.Sync()
	}
	return nil
}
