package cli

import (
	"archive/tar"
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

// openLayout returns the tar of a directory with the image layout of OCI. Files that do not belong to the layout are
// not in the tar. The root keeps links in the directory from leading out of it.
func openLayout(dir string) (*archiveSource, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	files, total, err := listLayout(root.FS())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", dir, err), root.Close())
	}
	r, w := io.Pipe()
	go func() {
		err := writeLayout(w, root, files)
		_ = w.CloseWithError(errors.Join(err, root.Close())) // nil means the end of the tar
	}()
	return &archiveSource{ReadCloser: r, total: total}, nil
}

// listLayout returns the files of an image layout and their size.
func listLayout(dir fs.FS) (files []string, total int64, err error) {
	for _, pattern := range layoutFiles {
		found, err := fs.Glob(dir, pattern)
		if err != nil {
			return nil, 0, err
		}
		if len(found) == 0 {
			return nil, 0, fmt.Errorf("is no image layout of OCI, because it has no %s", pattern)
		}
		for _, name := range found {
			info, err := fs.Stat(dir, name)
			if err != nil {
				return nil, 0, err
			}
			if !info.Mode().IsRegular() {
				return nil, 0, fmt.Errorf("%s is no regular file", name)
			}
			files, total = append(files, name), total+info.Size()
		}
	}
	return files, total, nil
}

// writeLayout writes the tar of an image layout.
func writeLayout(w io.Writer, root *os.Root, files []string) error {
	t := tar.NewWriter(w)
	for _, name := range files {
		if err := writeLayoutFile(t, root, name); err != nil {
			return err
		}
	}
	return t.Close()
}

func writeLayoutFile(t *tar.Writer, root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	err = t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path.Clean(name), Size: info.Size(), Mode: 0o644, ModTime: time.Unix(0, 0)})
	if err != nil {
		return err
	}
	if _, err := io.CopyN(t, f, info.Size()); errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: the file has become shorter than %d bytes: %w", name, info.Size(), io.ErrUnexpectedEOF)
	} else if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}
