package system

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// trialsVariable names the directory in which the tests of a run share the results of trials of OCI runtimes. A
// result is valid until the host boots again. Without sharing, the trials take a quarter of the processor time of a
// short test.
const trialsVariable = "CRISERVER_TEST_TRIALS"

// nodeDir stands for the directory of the node in a shared result.
const nodeDir = "@NODE@"

var (
	trialFile   = regexp.MustCompile(`^(userns|usernshost|runtime)-(runc|crun)\.json$`)
	trialFailed = []byte(`"failure"`)
)

// loadTrials copies the results of earlier tests to the run directory of the daemon, which must not run.
func (n *node) loadTrials() error {
	return copyTrials(os.Getenv(trialsVariable), filepath.Join(n.Dir, "run"), nodeDir, n.Dir)
}

// saveTrials shares the results of this daemon.
func (n *node) saveTrials() error {
	return copyTrials(filepath.Join(n.Dir, "run"), os.Getenv(trialsVariable), n.Dir, nodeDir)
}

// copyTrials copies the results of successful trials that do not exist in the other directory, and replaces a string.
func copyTrials(from, to, old, replacement string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !trialFile.MatchString(e.Name()) {
			continue
		}
		result, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if bytes.Contains(result, trialFailed) {
			continue
		}
		if err := publish(filepath.Join(to, e.Name()), bytes.ReplaceAll(result, []byte(old), []byte(replacement))); err != nil {
			return err
		}
	}
	return nil
}

// publish makes a file that other processes see only complete. A file that exists remains.
func publish(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".trial")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	if _, err := f.Write(content); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
