package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/ctxio"
	"golang.org/x/sys/unix"
)

// Tree reads the files of a container archive that another program has unpacked into a directory. The order of the
// entries is the order of the archive. A Tree reads only the files of the signed list in FilesFile: other files in the
// directory have no effect.
type Tree struct {
	ctx  context.Context //nolint:containedctx // a Tree lives as long as the call that reads the directory
	dir  *os.File
	list *FileList
	next int // index of the next file

	file *os.File // of the entry that Next has returned last, or nil
	hash hash.Hash
	rest io.Reader // the bytes of file that the caller has not read
}

// OpenTree opens a directory with an unpacked archive that a daemon with the key must have written. The caller must
// call Close. After ctx has ended, reads fail.
//
// Errors: ErrFailedPrecondition if the directory has no list of files, as the archives of other programs and of earlier
// daemons, or if the list has the signature of another key; ErrInvalidArgument for a list that breaks a rule.
func OpenTree(ctx context.Context, path string, key Key) (*Tree, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	t := &Tree{ctx: ctx, dir: os.NewFile(uintptr(fd), path)} //nolint:gosec // a descriptor is not negative
	if err := t.readList(key); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", FilesFile, err), t.Close())
	}
	return t, nil
}

// readList reads FilesFile.
func (t *Tree) readList(key Key) error {
	f, err := t.open(FilesFile)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the file is missing, so the unpacked files cannot be verified; archives of other programs "+
			"and of earlier versions do not have it: %w", errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return err
	}
	b, err := readLimited(ctxio.NewReader(t.ctx, f), maxFileList)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	t.list, err = parseFileList(b, key)
	return err
}

// Size returns the sum of the sizes of all files in bytes.
func (t *Tree) Size() (size int64) {
	for _, f := range t.list.Files {
		size += f.Size
	}
	return size
}

// Info returns the description of the container. The caller calls Info before Next.
func (t *Tree) Info() (*ContainerInfo, error) {
	e, err := t.Next()
	if err != nil {
		return nil, err
	}
	b, err := e.Bytes()
	if err == nil {
		err = t.finish()
	}
	if err != nil {
		return nil, err
	}
	t.next = 0
	return ParseInfo(b)
}

// Next returns the next entry, which is valid until the next call, or io.EOF after the last one. The caller must not
// trust an entry before the next call of Next, which returns ErrDataLoss if the content of the entry differs from the
// list.
//
// Errors: ErrDataLoss for a file that is missing or differs from the list, and ErrInvalidArgument if a part of its path
// is a symbolic link, or if the file is not a regular file.
func (t *Tree) Next() (*Entry, error) {
	if err := t.finish(); err != nil {
		return nil, err
	}
	if t.next == len(t.list.Files) {
		return nil, io.EOF
	}
	want := t.list.Files[t.next]
	f, err := t.open(want.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing: %w", want.Path, errdefs.ErrDataLoss)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != want.Size {
		err = fmt.Errorf("%s has %d bytes, %s says %d: %w", want.Path, info.Size(), FilesFile, want.Size, errdefs.ErrDataLoss)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t.next++
	t.file, t.hash = f, sha256.New()
	// io.TeeReader has no Seek method, so the caller cannot skip bytes.
	t.rest = io.TeeReader(ctxio.NewReader(t.ctx, io.LimitReader(f, want.Size)), t.hash)
	return &Entry{Name: want.Path, Size: want.Size, r: t.rest}, nil
}

// finish reads the rest of the last entry and compares its digest with the list.
func (t *Tree) finish() error {
	if t.file == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, t.rest)
	err = errors.Join(err, t.file.Close())
	t.file = nil
	if err != nil {
		return err
	}
	want := t.list.Files[t.next-1]
	if got := hex.EncodeToString(t.hash.Sum(nil)); got != want.SHA256 {
		return fmt.Errorf("%s has the digest %s, %s says %s: %w", want.Path, got, FilesFile, want.SHA256, errdefs.ErrDataLoss)
	}
	return nil
}

// Close closes the files of the Tree.
func (t *Tree) Close() error {
	err := t.dir.Close()
	if t.file != nil {
		err = errors.Join(err, t.file.Close())
	}
	return err
}

// open opens a regular file. The kernel refuses paths with symbolic links and paths that lead out of the directory or
// into another file system. A file of another kind is not opened, because opening a FIFO or a device has effects.
func (t *Tree) open(name string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := unix.Openat2(int(t.dir.Fd()), name, &how)
	for errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
		fd, err = unix.Openat2(int(t.dir.Fd()), name, &how)
	}
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%s is not a regular file below regular directories: %w: %w", name, err, errdefs.ErrInvalidArgument)
	case err != nil:
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file: %w", name, errdefs.ErrInvalidArgument)
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}
