package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// tree is the content of one layer. The entries are written in the order in which they were added, without times and
// user names, so that equal trees give equal bytes.
type tree struct {
	entries []entry
	known   map[string]bool
	err     error
}

type entry struct {
	header tar.Header
	body   []byte
}

func newTree() *tree { return &tree{known: map[string]bool{}} }

func (t *tree) add(h tar.Header, body []byte) *tree {
	h.Name = strings.TrimPrefix(path.Clean(h.Name), "/")
	if t.known[h.Name] {
		return t
	}
	if parent := path.Dir(h.Name); parent != "." {
		t.dir(parent, 0o755)
	}
	t.known[h.Name] = true
	t.entries = append(t.entries, entry{h, body})
	return t
}

func (t *tree) dir(name string, mode int64) *tree {
	return t.add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, nil)
}

func (t *tree) file(name string, mode int64, body []byte) *tree {
	return t.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(body))}, body)
}

func (t *tree) text(name, body string) *tree { return t.file(name, 0o644, []byte(body)) }

func (t *tree) owned(name string, mode int64, uid, gid int, body []byte) *tree {
	return t.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Uid: uid, Gid: gid, Size: int64(len(body))}, body)
}

func (t *tree) symlink(name, target string) *tree {
	return t.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

// hardlink adds another name for a file of the tree.
func (t *tree) hardlink(name, target string) *tree {
	return t.add(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: strings.TrimPrefix(target, "/"), Mode: 0o755}, nil)
}

// hostFile copies a file of the machine. layer returns its error.
func (t *tree) hostFile(name string, mode int64, from string) *tree {
	body, err := os.ReadFile(from)
	if err != nil && t.err == nil {
		t.err = err
	}
	return t.file(name, mode, body)
}

// whiteout deletes a name of a lower layer; opaque deletes all names of a directory.
func (t *tree) whiteout(name string) *tree {
	return t.file(path.Join(path.Dir(name), ".wh."+path.Base(name)), 0o644, nil)
}

func (t *tree) opaque(dir string) *tree {
	return t.file(path.Join(dir, ".wh..wh..opq"), 0o644, nil)
}

func (t *tree) writeTo(w io.Writer) error {
	if t.err != nil {
		return t.err
	}
	tw := tar.NewWriter(w)
	for _, e := range t.entries {
		if err := tw.WriteHeader(&e.header); err != nil {
			return fmt.Errorf("layer entry %q: %w", e.header.Name, err)
		}
		if _, err := tw.Write(e.body); err != nil {
			return fmt.Errorf("layer entry %q: %w", e.header.Name, err)
		}
	}
	return tw.Close()
}

// layer packs the tree, with gzip unless an option selects another format.
func (t *tree) layer(opts ...tarball.LayerOption) (v1.Layer, error) {
	var buf bytes.Buffer
	if err := t.writeTo(&buf); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }
	return tarball.LayerFromOpener(open, append([]tarball.LayerOption{tarball.WithCompressedCaching}, opts...)...)
}
