package docs

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/test/harness"
	"github.com/criserver/criserver/test/images"
)

// dirPrefix begins the names of the directories of runs.
const dirPrefix = "cridocs"

// outside builds the images and runs the tests in new namespaces. Afterwards it removes the directory and the cgroups,
// because tests that were killed or have exceeded their time limit do not.
func outside(cache string) (code int, err error) {
	if err := harness.RemoveDeadRuns(dirPrefix); err != nil {
		return 1, err
	}
	if err := images.Build(context.Background(), cache, false); err != nil {
		return 1, err
	}
	dir, lock, err := harness.MakeRunDir(dirPrefix)
	if err != nil {
		return 1, err
	}
	defer lock.Close()
	defer func() { err = errors.Join(err, harness.CleanUp(dir, filepath.Base(dir))) }()
	return 0, harness.IsolatedProcesses([]string{dirVariable + "=" + dir}, os.Args[1:]...)
}
