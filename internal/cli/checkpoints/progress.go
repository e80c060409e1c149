package checkpoints

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/internal/periodic"
)

// checkpointWork is the beginning of the name of the directory in which the daemon writes an archive.
const checkpointWork = ".criserver-checkpoint-"

// sizeInterval is the time between two measurements of the files of a checkpoint.
const sizeInterval = 200 * time.Millisecond

// watchCheckpoint shows the size of the files of a checkpoint on a terminal until the returned function is called. The
// final size is not known.
func watchCheckpoint(w io.Writer, size func() int64) (finish func()) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}
	}
	all := mpb.New(command.BarOptions(f)...)
	bar := all.New(0, mpb.SpinnerStyle(), mpb.BarWidth(1),
		mpb.PrependDecorators(decor.Name("checkpoint "), decor.CurrentKibiByte("% .1f written", decor.WC{W: 18})),
		mpb.AppendDecorators(decor.Elapsed(decor.ET_STYLE_GO)),
	)
	stop := periodic.Start(sizeInterval, func() { bar.SetCurrent(size()) })
	return func() {
		stop()
		bar.Abort(false)
		all.Wait()
	}
}

// newArchiveSize returns a function that returns the size of the files that the daemon writes for an archive. The
// directories of other checkpoints that run already do not count.
func newArchiveSize(path string) func() int64 {
	dir := filepath.Dir(path)
	others := make(map[string]bool)
	for _, name := range workDirs(dir) {
		others[name] = true
	}
	return func() (size int64) {
		for _, name := range workDirs(dir) {
			if !others[name] {
				size += treeSize(filepath.Join(dir, name))
			}
		}
		return size
	}
}

// workDirs returns the names of the directories of running checkpoints in a directory.
func workDirs(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), checkpointWork) {
			names = append(names, e.Name())
		}
	}
	return names
}

// treeSize returns the sum of the sizes of the regular files below a directory. treeSize ignores files that it cannot
// read, because the daemon removes temporary files during the checkpoint.
func treeSize(dir string) (size int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	return size
}
