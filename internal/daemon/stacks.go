package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/internal/atomicfile"
)

const (
	stacksDir = "stacks" // in run_dir
	// maxStacks is the maximum size of the file, in bytes. run_dir is in memory.
	maxStacks = 16 << 20
	// maxStacksInLog is the size of the stacks that are logged if they cannot be written to a file,
	// in bytes.
	maxStacksInLog = 64 << 10
	// keptStacks is the number of files that are kept.
	keptStacks = 5
)

// DumpStacks writes the stacks of all goroutines to a file in the run directory, and logs the path.
// The stacks can be too long for a log. DumpStacks deletes older files, so that repeated calls do
// not fill the memory. If the file cannot be written, DumpStacks logs the beginning of the stacks.
func (d *Daemon) DumpStacks() {
	stacks := allStacks()
	log := logrus.WithFields(logrus.Fields{"goroutines": runtime.NumGoroutine(), "bytes": len(stacks)})
	file, err := writeStacks(filepath.Join(d.cfg.Settings.RunDir, stacksDir), stacks)
	if err != nil {
		log.WithError(err).WithField("stacks", string(stacks[:min(len(stacks), maxStacksInLog)])).Error("write the stacks of all goroutines")
		return
	}
	log.WithField("file", file).Info("stacks of all goroutines written")
}

// allStacks returns the stacks of all goroutines, up to maxStacks bytes.
func allStacks() []byte {
	for size := 1 << 20; ; size *= 2 {
		b := make([]byte, min(size, maxStacks))
		if n := runtime.Stack(b, true); n < len(b) || len(b) == maxStacks {
			return b[:n]
		}
	}
}

// writeStacks writes stacks to a new file in a directory, and deletes all but the newest files.
func writeStacks(dir string, stacks []byte) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	file := filepath.Join(dir, fmt.Sprintf("%s.txt", time.Now().UTC().Format("20060102T150405.000000000Z")))
	if err := atomicfile.Write(file, stacks, 0o600); err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return file, err
	}
	slices.Sort(files) // by time
	var errs []error
	for len(files) > keptStacks {
		errs = append(errs, os.Remove(files[0]))
		files = files[1:]
	}
	return file, errors.Join(errs...)
}
