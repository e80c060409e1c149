package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"
)

// layoutFiles are the patterns of the files in a directory with the image layout of OCI.
var layoutFiles = []string{"oci-layout", "index.json", "blobs/*/*"}

// tarFile is a file of the tar that the command sends for a directory.
type tarFile struct {
	name    string // in the tar
	source  string // path in the directory; "": content is the content
	content []byte
	size    int64
}

// openDirectory returns the tar of a directory in the image layout of OCI, or of a directory that skopeo and podman
// write. Other files of the directory are not in the tar. The root keeps links in the directory from leading out of
// it.
func openDirectory(dir string) (*archiveSource, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	files, err := listDirectory(root.FS())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", dir, err), root.Close())
	}
	var total int64
	for _, f := range files {
		total += f.size
	}
	r, w := io.Pipe()
	go func() {
		err := writeTar(w, root, files)
		_ = w.CloseWithError(errors.Join(err, root.Close())) // nil means the end of the tar
	}()
	return &archiveSource{ReadCloser: r, total: total}, nil
}

// listDirectory returns the files of a directory with images.
func listDirectory(dir fs.FS) ([]tarFile, error) {
	if isSkopeoDirectory(dir) {
		return listSkopeoDirectory(dir)
	}
	var files []tarFile
	for _, pattern := range layoutFiles {
		found, err := fs.Glob(dir, pattern)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("is no directory of 'skopeo copy' to dir:, and no image layout of OCI, because it has no %s", pattern)
		}
		for _, name := range found {
			f, err := newTarFile(dir, path.Clean(name), name)
			if err != nil {
				return nil, err
			}
			files = append(files, f)
		}
	}
	return files, nil
}

// newTarFile returns a file of a directory, which must be a regular file.
func newTarFile(dir fs.FS, name, source string) (tarFile, error) {
	info, err := fs.Stat(dir, source)
	if err != nil {
		return tarFile{}, err
	}
	if !info.Mode().IsRegular() {
		return tarFile{}, fmt.Errorf("%s is no regular file", source)
	}
	return tarFile{name: name, source: source, size: info.Size()}, nil
}

// writeTar writes the tar of a directory.
func writeTar(w io.Writer, root *os.Root, files []tarFile) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		if err := writeTarFile(t, root, f); err != nil {
			return err
		}
	}
	return t.Close()
}

func writeTarFile(t *tar.Writer, root *os.Root, file tarFile) error {
	var content io.Reader = bytes.NewReader(file.content)
	if file.source != "" {
		f, err := root.Open(file.source)
		if err != nil {
			return err
		}
		defer f.Close()
		content = f
	}
	err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file.name, Size: file.size, Mode: 0o644, ModTime: time.Unix(0, 0)})
	if err != nil {
		return err
	}
	if _, err := io.CopyN(t, content, file.size); errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: the file has become shorter than %d bytes: %w", file.source, file.size, io.ErrUnexpectedEOF)
	} else if err != nil {
		return fmt.Errorf("read %s: %w", file.source, err)
	}
	return nil
}
