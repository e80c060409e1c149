// Package hooks adds the OCI hooks of the operator to OCI configs. The hooks and the conditions
// under which a container gets them are in directories of JSON files, in the format of
// oci-hooks(5). The package reads the files when a container is created. It does not run hooks.
package hooks

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Dirs are directories with hook files. A nil Dirs has no hooks. Dirs is safe for concurrent use.
type Dirs struct {
	dirs []string
	// files are the files of the last call of load, by path. The map is never written to.
	files atomic.Pointer[map[string]*file]
}

// New returns the hook files (*.json) in dirs. A file in a later directory replaces the files of
// the same name in earlier ones. A directory need not exist.
func New(dirs []string) *Dirs { return &Dirs{dirs: slices.Clone(dirs)} }

// Container has the properties, in addition to the OCI config, to which conditions of hooks refer.
type Container struct {
	// Annotations are the annotations of the pod and of the container.
	Annotations map[string]string
	// HasMounts is true if the request has mounts.
	HasMounts bool
}

// Add adds the hooks whose conditions the container meets to an OCI config, in the order of the
// names of their files, after the hooks that the config has.
//
// Add returns ErrFailedPrecondition if a hook of the container cannot be used, and for every
// container if a file has an unknown condition because it cannot be read. A container must not
// run without a hook that it may need, because the hook may confine the container.
func (d *Dirs) Add(config *specs.Spec, c Container) error {
	if d == nil {
		return nil
	}
	files, err := d.load()
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := f.add(config, c); err != nil {
			return fmt.Errorf("OCI hook %s: %w: %w", f.path, err, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// Check returns the errors of all files, also of those whose conditions no container may meet.
func (d *Dirs) Check() error {
	files, err := d.load()
	errs := []error{err}
	for _, f := range files {
		err := f.err
		if err == nil {
			err = f.checkProgram()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("OCI hook %s: %w", f.path, err))
		}
	}
	return errors.Join(errs...)
}

// load returns the current files in the order of their names. Files that have not changed since
// the last call are not read again.
func (d *Dirs) load() ([]*file, error) {
	paths := make(map[string]string) // by file name
	for _, dir := range d.dirs {
		names, err := jsonFiles(dir)
		if err != nil {
			return nil, fmt.Errorf("OCI hooks: %w: %w", err, errdefs.ErrFailedPrecondition)
		}
		for _, name := range names {
			paths[name] = filepath.Join(dir, name)
		}
	}
	if len(paths) == 0 {
		return nil, nil
	}
	var known map[string]*file
	if p := d.files.Load(); p != nil {
		known = *p
	}
	names := slices.SortedFunc(maps.Keys(paths), func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.ToLower(a), strings.ToLower(b)), cmp.Compare(a, b))
	})
	var files []*file
	changed := len(known) != len(paths)
	for _, name := range names {
		path := paths[name]
		f := known[path].current()
		if f == nil {
			f, changed = readFile(path), true
		}
		if !errors.Is(f.err, fs.ErrNotExist) { // deleted since jsonFiles, or a link to nothing
			files = append(files, f)
		}
	}
	if changed {
		byPath := make(map[string]*file, len(files))
		for _, f := range files {
			byPath[f.path] = f
		}
		d.files.Store(&byPath)
	}
	return files, nil
}

// jsonFiles returns the names of the files *.json in a directory, or none if the directory does
// not exist.
func jsonFiles(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", dir, err)
	}
	if err := checkOwner(&st); err != nil {
		return nil, fmt.Errorf("directory %s: %w", dir, err)
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".json") }), nil
}

// checkOwner returns an error if a user other than root can change a file: hooks run as root on
// the host.
func checkOwner(st *unix.Stat_t) error {
	switch {
	case st.Uid != 0:
		return fmt.Errorf("must belong to root, belongs to user %d", st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("must not be writable by group or others, has mode %04o", st.Mode&0o7777)
	}
	return nil
}
