// Package changes compares the writable layer of a container with the layers of its image, and
// lists what the container has added, changed and removed. It only reads. It does not mount
// overlays and does not deal with images or containers.
//
// The container may change its files during a comparison. Files that appear or disappear are no errors.
package changes

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Kind says what a container did with a file.
type Kind int

// The kinds of changes.
const (
	Added   Kind = iota + 1 // the image does not have the file
	Changed                 // the file of the image has other content, metadata or another type
	Removed                 // the container does not see the file of the image any more
)

// Type is the type of a file.
type Type string

// The types of files.
const (
	Regular     Type = "file"
	Directory   Type = "directory"
	Symlink     Type = "symlink"
	Socket      Type = "socket"
	FIFO        Type = "fifo"
	CharDevice  Type = "char-device"
	BlockDevice Type = "block-device"
)

// Change is one difference between the writable layer and the image.
type Change struct {
	Path string // as the container sees it, absolute
	Kind Kind
	Type Type  // of a removed file: the type in the image
	Size int64 // of the content of a regular file in bytes; of a removed file: the size in the image
	// Metadata reports that only the owner, the mode or other metadata differ: a directory, or a
	// regular file with the size and the modification time that it has in the image.
	Metadata bool
	// Opaque reports that the container removed a directory of the image and made it again, so
	// that everything that the image has below the directory is removed.
	Opaque bool
	// HardLink reports that the file is another name of a file that was listed before. Its size is
	// not counted again.
	HardLink bool
	// From is the path of the directory of the image that the container has renamed, or "".
	From string
}

// Total is the number of changes of one kind, and the sum of their sizes in bytes.
type Total struct {
	Count int64
	Bytes int64
}

// Summary has the totals of a comparison.
type Summary struct {
	Added, Changed, Removed Total
	// Skipped is the number of files that could not be read, for example because their path is too
	// long.
	Skipped int64
	// Incomplete reports that the comparison ended early, at its deadline or at the maximum number
	// of files.
	Incomplete bool
}

// Layers are the directories to compare.
type Layers struct {
	Upper string   // the writable layer
	Lower []string // the layers of the image, topmost first
	// MapUID and MapGID return the ids on disk in the writable layer for ids in the image. Nil means
	// that both ids are equal.
	MapUID, MapGID func(id uint32) uint32
}

// maxFiles is the maximum number of files of a writable layer that one comparison reads. It bounds
// the memory, because the names of a directory are sorted.
const maxFiles = 2 << 20

// openTop are the flags for the top directories.
const openTop = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// Compare calls emit for each change, ordered by the parts of the paths. A deadline of ctx ends the
// comparison early, which is not an error.
//
// Compare returns the error of emit, the error of a cancelled ctx, and an error that wraps fs.ErrNotExist if the
// directory of a layer does not exist.
func Compare(ctx context.Context, l Layers, emit func(Change) error) (Summary, error) {
	w := walk{ctx: ctx, layers: l, emit: emit, linked: make(map[uint64]bool), left: maxFiles}
	defer w.close()
	var err error
	if w.upper, err = os.OpenFile(l.Upper, openTop, 0); err != nil {
		return Summary{}, fmt.Errorf("open writable layer: %w", err)
	}
	top := dir{path: ""}
	for i, name := range l.Lower {
		f, err := os.OpenFile(name, openTop, 0)
		if err != nil {
			return Summary{}, fmt.Errorf("open layer of the image: %w", err)
		}
		w.lower = append(w.lower, f)
		top.lower = append(top.lower, lowerDir{layer: i})
	}
	err = w.compareTop(top)
	if err == nil {
		err = w.compareDir(top)
	}
	if errors.Is(err, errIncomplete) {
		w.summary.Incomplete, err = true, nil
	}
	return w.summary, err
}

// errIncomplete ends a walk at its deadline or at the maximum number of files.
var errIncomplete = errors.New("incomplete")

func typeOf(mode uint32) Type {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return Directory
	case unix.S_IFLNK:
		return Symlink
	case unix.S_IFSOCK:
		return Socket
	case unix.S_IFIFO:
		return FIFO
	case unix.S_IFCHR:
		return CharDevice
	case unix.S_IFBLK:
		return BlockDevice
	}
	return Regular
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

func isRegular(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFREG }

// isWhiteout reports whether a file hides the files with its name in the layers below.
func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// size returns the size of the content of a regular file, or 0.
func size(st *unix.Stat_t) int64 {
	if isRegular(st) {
		return st.Size
	}
	return 0
}
