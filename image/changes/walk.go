package changes

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// walk is a walk through a writable layer. It opens each directory by its path below the top
// directory, without symbolic links, so that a container cannot lead the walk out of the layer.
// Between two directories only the top directories are open.
type walk struct {
	ctx     context.Context //nolint:containedctx // lives as long as one call of Compare
	layers  Layers
	upper   *os.File
	lower   []*os.File
	emit    func(Change) error
	linked  map[uint64]bool // inodes with several links that were listed
	left    int             // number of files that the walk may still read
	summary Summary
}

// dir is a directory of the writable layer.
type dir struct {
	path string // relative to the top; "" for the top
	// lower are the directories in the layers of the image that overlay merges, topmost first.
	lower []lowerDir
}

// lowerDir is a directory of a layer. Its path differs from the path in the writable layer below a
// renamed directory.
type lowerDir struct {
	layer int
	path  string
}

// entry is a file of a directory.
type entry struct {
	change *Change // nil for a directory that has not changed itself
	sub    *dir    // nil unless it is a directory
}

func (w *walk) close() {
	for _, f := range append(w.lower, w.upper) {
		if f != nil {
			_ = f.Close()
		}
	}
}

// compareTop compares the metadata of the top directory.
func (w *walk) compareTop(top dir) error {
	var up, low unix.Stat_t
	if len(w.lower) == 0 || unix.Fstat(int(w.upper.Fd()), &up) != nil || unix.Fstat(int(w.lower[0].Fd()), &low) != nil || w.sameMetadata(&up, &low) {
		return nil
	}
	return w.found(&Change{Path: "/" + top.path, Kind: Changed, Type: Directory, Metadata: true})
}

// compareDir compares the files of a directory and of the directories below it.
func (w *walk) compareDir(d dir) error {
	entries, err := w.readDir(d)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.change != nil {
			if err := w.found(e.change); err != nil {
				return err
			}
		}
		if e.sub != nil {
			if err := w.compareDir(*e.sub); err != nil {
				return err
			}
		}
	}
	return nil
}

// found counts a change and passes it on.
func (w *walk) found(c *Change) error {
	total := map[Kind]*Total{Added: &w.summary.Added, Changed: &w.summary.Changed, Removed: &w.summary.Removed}[c.Kind]
	total.Count++
	if !c.HardLink {
		total.Bytes += c.Size
	}
	return w.emit(*c)
}

// readDir classifies the files of a directory, ordered by name. A directory that disappears has no
// files.
func (w *walk) readDir(d dir) ([]entry, error) {
	f, err := openBelow(w.upper, d.path)
	if err != nil {
		w.skip(err)
		return nil, nil
	}
	defer f.Close()
	names, err := w.readNames(f)
	if err != nil {
		return nil, err
	}
	lower, closeLower := w.openLower(d.lower)
	defer closeLower()
	var entries []entry
	for _, name := range names {
		if err := w.check(); err != nil {
			return nil, err
		}
		e, err := w.classify(d, f, lower, name)
		if err != nil {
			w.skip(err)
			continue
		}
		if e.change != nil || e.sub != nil {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// readNames returns the sorted names of a directory.
func (w *walk) readNames(f *os.File) ([]string, error) {
	var names []string
	for {
		more, err := f.Readdirnames(1024)
		if w.left -= len(more); w.left < 0 {
			return nil, errIncomplete
		}
		names = append(names, more...)
		if err != nil || len(more) == 0 {
			break
		}
		if err := w.check(); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return names, nil
}

// check returns errIncomplete after the deadline of the walk, and the error of a cancelled context.
func (w *walk) check() error {
	switch err := w.ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded):
		return errIncomplete
	default:
		return err
	}
}

// skip counts a file that cannot be read, unless the file was removed or replaced during the comparison.
func (w *walk) skip(err error) {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ESTALE):
	default:
		w.summary.Skipped++
	}
}

// openFile is an open directory of a layer.
type openFile struct {
	lowerDir
	file *os.File
}

// openLower opens directories of the layers of the image. It omits the layers that do not have the
// directory.
func (w *walk) openLower(dirs []lowerDir) (open []openFile, closeAll func()) {
	for _, d := range dirs {
		if f, err := openBelow(w.lower[d.layer], d.path); err == nil {
			open = append(open, openFile{d, f})
		}
	}
	return open, func() {
		for _, o := range open {
			_ = o.file.Close()
		}
	}
}

// openBelow opens a directory below an open directory. The kernel refuses symbolic links, "..", and
// other file systems on the path.
func openBelow(top *os.File, name string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	if name == "" {
		name = "."
	}
	for {
		fd, err := unix.Openat2(int(top.Fd()), name, &how)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // EAGAIN: a directory was renamed during the resolution
			continue
		case err != nil:
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// join returns the path of a file in a directory.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// absolute returns the path of a file as the container sees it.
func absolute(name string) string { return path.Join("/", strings.TrimPrefix(name, "/")) }
