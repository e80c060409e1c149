package network

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/internal/atomicfile"
)

// tableFiles is a directory with a file for each table of nftables that a daemon of
// this run directory has made, or is about to make. A table without a file is another
// daemon's and is never deleted. The content says what is in the table.
type tableFiles struct{ dir string }

func (f tableFiles) put(table string, content any) error {
	b, err := json.Marshal(content)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(f.dir, table), b, 0o600)
}

func (f tableFiles) remove(table string) error {
	if err := os.Remove(filepath.Join(f.dir, table)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// all returns the contents by the names of the tables.
func (f tableFiles) all() (map[string][]byte, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := make(map[string][]byte)
	var errs []error
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(f.dir, e.Name()))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[e.Name()] = b
	}
	return out, errors.Join(errs...)
}
