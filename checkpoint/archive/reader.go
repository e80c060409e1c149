package archive

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// otherFiles are entries of other programs, which a Reader skips.
var otherFiles = []string{"network.status", "status.dump", "status", "restore.log", "artifacts", "ctr.log"}

// Entry is a file of a container archive.
type Entry struct {
	Name string // a constant of this package, or the ImagePath of a file name
	Size int64  // bytes
	r    io.Reader
}

// Image returns the name of a CRIU image, or "" for another entry.
func (e *Entry) Image() string {
	if dir, name := path.Split(e.Name); dir == ImageDir+"/" {
		return name
	}
	return ""
}

// Read reads the content of the entry.
func (e *Entry) Read(p []byte) (int, error) { return e.r.Read(p) }

// Bytes reads the content of an entry of at most MaxJSON bytes.
func (e *Entry) Bytes() ([]byte, error) {
	if e.Size > MaxJSON {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d: %w", e.Name, e.Size, MaxJSON, errdefs.ErrInvalidArgument)
	}
	return io.ReadAll(e)
}

// Reader reads a container archive.
type Reader struct {
	tar   *tar.Reader
	count int
	seen  map[string]bool

	hash   hash.Hash // of all bytes that were read; nil if the archive is not authenticated
	key    Key
	signed bool
}

// NewReader returns a Reader of the archive in r. The Reader does not authenticate the archive.
func NewReader(r io.Reader) *Reader {
	return &Reader{tar: tar.NewReader(r), seen: make(map[string]bool)}
}

// NewAuthenticReader returns a Reader of an archive that a daemon with the key must have written. Next returns
// ErrFailedPrecondition in place of io.EOF if a daemon with another key has written the archive, or if the archive was
// changed. So the caller must read the archive to its end before the caller trusts any entry.
func NewAuthenticReader(r io.Reader, key Key) *Reader {
	h := sha256.New()
	// io.TeeReader has no Seek method, so the tar.Reader reads all bytes.
	return &Reader{tar: tar.NewReader(io.TeeReader(r, h)), seen: make(map[string]bool), hash: h, key: key}
}

// Next returns the next entry, which is valid until the next call, or io.EOF at the end of the archive. Next skips
// directories and the entries of other programs.
//
// Errors: ErrInvalidArgument for an entry that is not a regular file, is too large, has an unknown name, or has the
// name of an earlier entry. The same error is returned for more than MaxEntries entries, and for an archive that is
// truncated or is not a tar. Next also returns the errors of NewAuthenticReader.
func (r *Reader) Next() (*Entry, error) {
	for {
		h, err := r.tar.Next()
		if errors.Is(err, io.EOF) && r.hash != nil && !r.signed {
			return nil, errNotAuthentic
		}
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		if err != nil {
			return nil, fmt.Errorf("read checkpoint archive: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		if r.count++; r.count > MaxEntries {
			return nil, fmt.Errorf("the checkpoint archive has more than %d entries: %w", MaxEntries, errdefs.ErrInvalidArgument)
		}
		e, err := r.entry(h)
		if e != nil || err != nil {
			return e, err
		}
	}
}

// Signed reports whether Next has read MACFile, the last entry of an archive that a daemon has written. Without MACFile
// such an archive is truncated.
func (r *Reader) Signed() bool { return r.signed }

// entry returns the entry of a header, or nil if Next skips the entry.
func (r *Reader) entry(h *tar.Header) (*Entry, error) {
	name := path.Clean(h.Name)
	switch {
	case h.Typeflag == tar.TypeDir && (name == "." || name == ImageDir || slices.Contains(otherFiles, name)):
		return nil, nil
	case h.Typeflag == tar.TypeReg && (slices.Contains(otherFiles, name) || strings.HasPrefix(name, "artifacts/")):
		return nil, nil
	case h.Typeflag != tar.TypeReg:
		return nil, fmt.Errorf("entry %q of the checkpoint archive is not a regular file: %w", h.Name, errdefs.ErrInvalidArgument)
	case h.Size < 0 || h.Size > maxSize:
		return nil, fmt.Errorf("entry %q of the checkpoint archive has the size %d: %w", h.Name, h.Size, errdefs.ErrInvalidArgument)
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if r.seen[name] {
		return nil, fmt.Errorf("entry %q occurs twice in the checkpoint archive: %w", h.Name, errdefs.ErrInvalidArgument)
	}
	r.seen[name] = true
	if r.signed {
		return nil, fmt.Errorf("entry %q follows %s: %w", h.Name, MACFile, errdefs.ErrInvalidArgument)
	}
	if name == MACFile {
		return nil, r.authenticate(h)
	}
	return &Entry{Name: name, Size: h.Size, r: r.tar}, nil
}

// authenticate checks the code in MACFile, whose header was read.
func (r *Reader) authenticate(h *tar.Header) error {
	if h.Size != macSize {
		return fmt.Errorf("%s has %d bytes, want %d: %w", MACFile, h.Size, macSize, errdefs.ErrInvalidArgument)
	}
	r.signed = true
	if r.hash == nil {
		return nil
	}
	digest := r.hash.Sum(nil)
	code, err := io.ReadAll(r.tar)
	if err != nil {
		return fmt.Errorf("read checkpoint archive: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return r.key.check(kindArchive, digest, string(code))
}
