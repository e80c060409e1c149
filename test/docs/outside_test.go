package docs

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/test/harness"
	"github.com/criserver/criserver/test/images"
)

// dirPrefix begins the names of the directories of runs.
const dirPrefix = "cridocs"

// outside builds the images and runs the tests in new namespaces. Afterwards it removes the directory and the cgroups,
// because tests that were killed or have exceeded their time limit do not.
func outside(cache string) (code int, err error) {
	if err := removeFormer(); err != nil {
		return 1, err
	}
	if err := images.Build(context.Background(), cache, false); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, harness.CleanUp(dir, filepath.Base(dir))) }()
	lock, err := os.Open(dir)
	if err != nil {
		return 1, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return 1, err
	}
	return 0, harness.IsolatedProcesses([]string{dirVariable + "=" + dir}, os.Args[1:]...)
}

// removeFormer removes the directories and cgroups of runs whose process was killed. The process of a run that goes on
// has a lock on its directory.
func removeFormer() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"[0-9]*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := removeUnlocked(dir); err != nil {
			return err
		}
	}
	return nil
}

func removeUnlocked(dir string) error {
	lock, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
		return err
	}
	return harness.CleanUp(dir, filepath.Base(dir))
}
