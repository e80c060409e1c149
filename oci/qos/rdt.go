package qos

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// RDT contains the classes of cache and memory bandwidth of a file, "" for none. A class is a
// control group of the resctrl file system. The OCI runtime makes it with the schemata in the
// file, or it exists already.
type RDT struct {
	File string
	Root string // where resctrl is mounted
}

// ResctrlRoot is the usual mount point of resctrl.
const ResctrlRoot = "/sys/fs/resctrl"

type rdtFile struct {
	Classes map[string]rdtClass
}

// rdtClass contains the lines of a schemata file, with the names of the OCI config. Both are
// optional.
type rdtClass struct {
	L3CacheSchema string
	MemBwSchema   string
}

var (
	l3Schema = regexp.MustCompile(`^L3(CODE|DATA)?:\d{1,4}=[0-9a-fA-F]{1,16}(;\d{1,4}=[0-9a-fA-F]{1,16})*$`)
	mbSchema = regexp.MustCompile(`^MB:\d{1,4}=\d{1,9}(;\d{1,4}=\d{1,9})*$`)
)

// Check reads the file and returns its errors, for the start of the daemon.
func (r RDT) Check() error {
	if r.File == "" {
		return nil
	}
	_, err := r.read()
	return err
}

func (r RDT) read() (f rdtFile, err error) {
	if err := read(r.File, &f); err != nil {
		return f, err
	}
	for _, name := range slices.Sorted(maps.Keys(f.Classes)) {
		c := f.Classes[name]
		switch {
		case !className.MatchString(name) || slices.Contains([]string{"info", "mon_data", "mon_groups"}, name):
			return f, fmt.Errorf("%s: class %q: a name has letters, digits, '.', '_' and '-', and is not one of resctrl's own", r.File, name)
		case c.L3CacheSchema != "" && !l3Schema.MatchString(c.L3CacheSchema):
			return f, fmt.Errorf("%s: class %q: l3CacheSchema %q must be like L3:0=ff;1=0f", r.File, name, c.L3CacheSchema)
		case c.MemBwSchema != "" && !mbSchema.MatchString(c.MemBwSchema):
			return f, fmt.Errorf("%s: class %q: memBwSchema %q must be like MB:0=50;1=100", r.File, name, c.MemBwSchema)
		}
	}
	return f, nil
}

// Class returns a class. It returns ErrInvalidArgument for an unknown class, and
// ErrFailedPrecondition if the node lacks a feature that the class needs.
func (r RDT) Class(name string) (*specs.LinuxIntelRdt, error) {
	if r.File == "" {
		return nil, unconfigured("RDT")
	}
	f, err := r.read()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	c, ok := f.Classes[name]
	if !ok {
		return nil, unknown(name, r.File)
	}
	if _, err := os.Stat(filepath.Join(r.Root, "schemata")); err != nil {
		return nil, fmt.Errorf("this node has no RDT, or resctrl is not mounted on %s: %w", r.Root, errdefs.ErrFailedPrecondition)
	}
	if c == (rdtClass{}) {
		if _, err := os.Stat(filepath.Join(r.Root, name, "schemata")); err != nil {
			return nil, fmt.Errorf("class %q has no schemata in %s and no control group in %s: %w", name, r.File, r.Root, errdefs.ErrFailedPrecondition)
		}
	}
	return &specs.LinuxIntelRdt{ClosID: name, L3CacheSchema: c.L3CacheSchema, MemBwSchema: c.MemBwSchema}, nil
}
