package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/ctxio"
)

// Writer writes a container archive. Only root may read the entries.
type Writer struct {
	ctx  context.Context //nolint:containedctx // a Writer lives as long as the call that makes the archive
	tar  *tar.Writer
	hash hash.Hash
	size int64
	time time.Time
	seen map[string]bool
	// files are the entries so far.
	files []File
	key   Key
}

// NewWriter returns a Writer to w, which signs the archive with key. All entries get the modification time now. After
// ctx has ended, writes fail.
func NewWriter(ctx context.Context, w io.Writer, now time.Time, key Key) *Writer {
	out := &Writer{ctx: ctx, hash: sha256.New(), time: now.Truncate(time.Second), seen: make(map[string]bool), key: key}
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

// Images adds the directory ImageDir, which checkpointctl requires. The caller calls Images before it adds CRIU
// images.
func (w *Writer) Images() error {
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: ImageDir + "/", Mode: 0o700, ModTime: w.time})
}

// Section adds an entry with the bytes from offset to end of f. Another process may append to f during the call.
func (w *Writer) Section(name string, f *os.File, offset, end int64) error {
	return w.add(name, end-offset, io.NewSectionReader(f, offset, end-offset))
}

// File adds an entry with the content of a regular file below dir.
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

// add adds an entry with size bytes of content.
func (w *Writer) add(name string, size int64, content io.Reader) error {
	if err := checkName(name); err != nil {
		return err
	}
	if w.seen[name] {
		return fmt.Errorf("write %s: %w", name, errdefs.ErrAlreadyExists)
	}
	w.seen[name] = true
	if err := w.header(name, size); err != nil {
		return err
	}
	hash := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w.tar, hash), ctxio.NewReader(w.ctx, content)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	w.files = append(w.files, File{Path: name, Size: size, SHA256: hex.EncodeToString(hash.Sum(nil))})
	return nil
}

// list adds FilesFile.
func (w *Writer) list() error {
	list := FileList{Version: Version, Files: w.files}
	if err := list.sign(w.key); err != nil {
		return err
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return w.Bytes(FilesFile, append(b, '\n'))
}

// header writes the header of an entry with size bytes of content.
func (w *Writer) header(name string, size int64) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size, ModTime: w.time}
	if err := w.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// sign adds MACFile. The code includes the header of the entry, because a tar.Reader has read the header before the
// content.
func (w *Writer) sign() error {
	if err := w.header(MACFile, macSize); err != nil {
		return err
	}
	_, err := io.WriteString(w.tar, w.key.code(kindArchive, w.hash.Sum(nil)))
	return err
}

// Close adds the list of the entries, signs and ends the archive and returns its size and digest as a File without a
// path. Close does not close the underlying writer.
func (w *Writer) Close() (File, error) {
	if err := errors.Join(w.list(), w.sign(), w.tar.Close()); err != nil {
		return File{}, err
	}
	return File{Size: w.size, SHA256: hex.EncodeToString(w.hash.Sum(nil))}, nil
}
