package nat

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/internal/atomicfile"
)

// Files is a directory with a file for each nftables table that a daemon of this run directory
// has created or is about to create. The content of the file describes the table. A table without a
// file belongs to another daemon and is never deleted.
type Files struct{ Dir string }

// put writes the file of a table.
func (f Files) put(table string, content any) error {
	b, err := json.Marshal(content)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(f.Dir, table), b, 0o600)
}

// remove removes the file of a table if the file exists.
func (f Files) remove(table string) error {
	if err := os.Remove(filepath.Join(f.Dir, table)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// All returns the contents of all files by name of the table.
func (f Files) All() (map[string][]byte, error) {
	entries, err := os.ReadDir(f.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := make(map[string][]byte)
	var errs []error
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(f.Dir, e.Name()))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[e.Name()] = b
	}
	return out, errors.Join(errs...)
}
