package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"time"

	"github.com/containerd/errdefs"
)

// Writer writes a container archive. Its entries are regular files that only root may read.
type Writer struct {
	ctx  context.Context //nolint:containedctx // a Writer lives as long as the call that makes the archive
	tar  *tar.Writer
	hash hash.Hash
	size int64
	time time.Time
	seen map[string]bool
}

// NewWriter returns a Writer to w. now is the modification time of all entries. The writes fail when ctx ends.
func NewWriter(ctx context.Context, w io.Writer, now time.Time) *Writer {
	out := &Writer{ctx: ctx, hash: sha256.New(), time: now.Truncate(time.Second), seen: make(map[string]bool)}
	out.tar = tar.NewWriter(io.MultiWriter(w, out.hash, counter{&out.size}))
	return out
}

type counter struct{ n *int64 }

func (c counter) Write(p []byte) (int, error) {
	*c.n += int64(len(p))
	return len(p), nil
}

// Bytes adds an entry.
func (w *Writer) Bytes(name string, content []byte) error {
	return w.add(name, int64(len(content)), bytes.NewReader(content))
}

// JSON adds an entry with v as JSON.
func (w *Writer) JSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return w.Bytes(name, append(b, '\n'))
}

// Images begins the images of CRIU: it adds the directory in which they are. checkpointctl looks for the directory.
func (w *Writer) Images() error {
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: ImageDir + "/", Mode: 0o700, ModTime: w.time})
}

// Section adds an entry with the bytes of a file from offset to end. The file may grow meanwhile.
func (w *Writer) Section(name string, f *os.File, offset, end int64) error {
	return w.add(name, end-offset, io.NewSectionReader(f, offset, end-offset))
}

// File adds an entry with the content of a file below dir.
func (w *Writer) File(name string, dir *os.Root, file string) error {
	f, err := openRegular(dir, file)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return w.Section(name, f, 0, info.Size())
}

// add adds an entry. The content must have size bytes.
func (w *Writer) add(name string, size int64, content io.Reader) error {
	if err := checkName(name); err != nil {
		return err
	}
	if w.seen[name] {
		return fmt.Errorf("write %s: %w", name, errdefs.ErrAlreadyExists)
	}
	w.seen[name] = true
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size, ModTime: w.time}
	if err := w.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := io.Copy(w.tar, readerWithContext{w.ctx, content}); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// Close ends the archive and returns it as the file of a manifest, without a path. It does not close the underlying
// writer.
func (w *Writer) Close() (File, error) {
	if err := w.tar.Close(); err != nil {
		return File{}, err
	}
	return File{Size: w.size, SHA256: hex.EncodeToString(w.hash.Sum(nil))}, nil
}

// ImagePath returns the name of the entry of an image of CRIU.
func ImagePath(name string) string { return path.Join(ImageDir, name) }
