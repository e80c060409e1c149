package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

const (
	// maxEntries is the maximum number of entries of an archive.
	maxEntries = 100_000
	// maxName is the maximum length of a name in bytes.
	maxName = 4096
	// maxNames is the maximum number of bytes of all names, which stay in memory.
	maxNames = 16 << 20
)

// file is a file in an archive: the section of the tar with its content, or a link to another file.
type file struct {
	offset, size int64
	link         string // the path in the archive that the link refers to; "" for a regular file
}

// scan returns the files of a tar by their paths. It reads only the headers.
func scan(ctx context.Context, r io.ReaderAt, size int64) (map[string]file, error) {
	s := scanner{size: size, files: make(map[string]file)}
	section := io.NewSectionReader(r, 0, size)
	for t := tar.NewReader(section); ; {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return s.files, nil
		}
		if err != nil {
			return nil, classifyTar(err)
		}
		// The tar reader has read exactly the header.
		offset, err := section.Seek(0, io.SeekCurrent)
		if err == nil {
			err = s.add(h, offset)
		}
		if err != nil {
			return nil, err
		}
	}
}

// classifyTar adds a class to an error of the tar reader.
func classifyTar(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("archive is truncated: %w: %w", err, errdefs.ErrDataLoss)
	}
	return fmt.Errorf("tar is malformed: %w: %w", err, errdefs.ErrInvalidArgument)
}

// scanner collects the files of a tar.
type scanner struct {
	size           int64 // of the tar
	files          map[string]file
	entries, names int
}

// add checks an entry and adds its file. Directories and global headers have no content.
func (s *scanner) add(h *tar.Header, offset int64) error {
	s.entries++
	s.names += len(h.Name) + len(h.Linkname)
	switch {
	case s.entries > maxEntries:
		return fmt.Errorf("archive has more than %d entries: %w", maxEntries, errdefs.ErrResourceExhausted)
	case s.names > maxNames:
		return fmt.Errorf("archive has more than %d bytes of names: %w", maxNames, errdefs.ErrResourceExhausted)
	case h.Typeflag == tar.TypeXGlobalHeader:
		return nil
	}
	name, err := localPath(h.Name)
	if err != nil {
		return err
	}
	f := file{offset: offset, size: h.Size}
	switch h.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeReg:
		if h.Size < 0 || h.Size > s.size-offset {
			return fmt.Errorf("entry %q has %d bytes, and the archive has %d after its header: %w", name, h.Size, s.size-offset, errdefs.ErrDataLoss)
		}
		if isSparse(h) {
			return fmt.Errorf("entry %q is sparse, which is not supported: %w", name, errdefs.ErrInvalidArgument)
		}
	case tar.TypeSymlink:
		f, err = linkTo(name, path.Join(path.Dir(name), h.Linkname), h.Linkname)
	case tar.TypeLink:
		f, err = linkTo(name, h.Linkname, h.Linkname)
	default:
		return fmt.Errorf("entry %q has type %q, which an archive of images cannot have: %w", name, h.Typeflag, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	if _, ok := s.files[name]; ok {
		return fmt.Errorf("archive has the entry %q twice: %w", name, errdefs.ErrInvalidArgument)
	}
	s.files[name] = f
	return nil
}

// linkTo returns a link of an archive. target is relative to the root of the archive.
func linkTo(name, target, written string) (file, error) {
	target, err := localPath(target)
	if err != nil || path.IsAbs(written) {
		return file{}, fmt.Errorf("link %q refers to %.256q, which is not in the archive: %w", name, written, errdefs.ErrInvalidArgument)
	}
	return file{link: target}, nil
}

// isSparse reports whether the content of an entry is not stored as it is.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// localPath returns the canonical form of a path in the archive. It refuses paths that lead out of the
// archive, and absolute paths.
func localPath(name string) (string, error) {
	if len(name) > maxName {
		return "", fmt.Errorf("archive has the name %.64q… of %d bytes, at most %d are allowed: %w", name, len(name), maxName, errdefs.ErrInvalidArgument)
	}
	if !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("archive has the path %q, which leads out of the archive: %w", name, errdefs.ErrInvalidArgument)
	}
	return path.Clean(name), nil
}
