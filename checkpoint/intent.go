package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/internal/atomicfile"
	"golang.org/x/sys/unix"
)

// intentVersion is the version of the format of an intent.
const intentVersion = 1

// intent is the record of a running checkpoint. It is written before the first side effect and removed last.
type intent struct {
	Version int    `json:"version"`
	Boot    string `json:"boot"`
	ID      string `json:"id"` // id of the checkpoint, and the Mark of the runtime and of CRIU
	// Cgroups are the cgroups that the checkpoint freezes.
	Cgroups []string `json:"cgroups"`
	// Work is the absolute path of the directory for temporary files. The checkpoint creates the directory.
	Work string `json:"work"`
	// Output is the directory of a pod checkpoint, or nil.
	Output *outputDir `json:"output,omitempty"`
}

// outputDir identifies a directory by its path and inode. The recovery changes no other directory with the same path.
type outputDir struct {
	Path string `json:"path"`
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
}

func (m *Manager) intentFile(id string) string { return filepath.Join(m.cfg.Dir, id+".json") }

// begin writes the intent.
func (m *Manager) begin(i *intent) error {
	i.Version, i.Boot = intentVersion, m.boot
	b, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return atomicfile.Write(m.intentFile(i.ID), b, 0o600)
}

// end removes the intent. Before the call, all containers must be thawed and all temporary files removed.
func (m *Manager) end(i *intent) error { return os.Remove(m.intentFile(i.ID)) }

// readIntent returns the intent in a file.
func readIntent(file string) (*intent, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var i intent
	if err := json.Unmarshal(b, &i); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if i.Version != intentVersion || !filepath.IsAbs(i.Work) || filepath.Base(file) != i.ID+".json" {
		return nil, fmt.Errorf("%s: version %d with id %q is not supported", file, i.Version, i.ID)
	}
	return &i, nil
}

// identify returns the identity of an open directory.
func identify(path string, dir *os.File) (*outputDir, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	return &outputDir{Path: path, Dev: st.Dev, Ino: st.Ino}, nil
}

// open opens the directory again. If the path does not exist or is another directory, open returns fs.ErrNotExist.
func (o *outputDir) open() (*os.Root, error) {
	root, err := os.OpenRoot(o.Path)
	if errors.Is(err, unix.ENOTDIR) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	defer dir.Close()
	now, err := identify(o.Path, dir)
	if err == nil && *now != *o {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}
