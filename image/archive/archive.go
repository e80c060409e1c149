// Package archive reads and writes archives of images: tars in the layout of OCI, and tars of `docker save`.
// It never unpacks an archive. It indexes the entries of the tar and reads them where they are, so a name
// or a link in an archive cannot refer to a file of the host.
//
// The package must not deal with the store of layers and images, or with signature policies.
package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Format is the format of an archive. The values are the names of the transports that policy.json and
// skopeo use.
type Format string

// The formats of archives.
const (
	OCI    Format = "oci-archive"    // a tar with the image layout of OCI
	Docker Format = "docker-archive" // a tar of `docker save`
)

// maxDocument is the maximum size in bytes of a manifest, an index or a config. containers/image has
// the same limit.
const maxDocument = 4 << 20

const (
	maxImages = 1000 // of an archive
	maxTags   = 1000 // of an image
)

// Archive is an indexed archive. Its images can be read in parallel while the file is open.
type Archive struct {
	Format Format
	Images []*Image // at least one

	r     io.ReaderAt
	files map[string]file
}

// Image is one image of an archive.
type Image struct {
	// Names are the names in the archive, which need not have a registry.
	Names []string
	// Digest is the digest of the manifest or of the index of the image. In a docker-archive, it is the digest of a
	// manifest that no registry has, because such an archive contains none.
	Digest digest.Digest

	archive *Archive
	blobs   map[digest.Digest]content
}

// content is the content of a blob: a section of the archive, or data in memory.
type content struct {
	section file
	data    []byte
}

// Open indexes an uncompressed archive of size bytes. It returns ErrInvalidArgument if the archive is
// malformed, ErrDataLoss if it is truncated or damaged, and ErrResourceExhausted if it exceeds a limit.
// platform is the platform of the host, such as "linux/amd64".
func Open(ctx context.Context, r io.ReaderAt, size int64, platform string) (*Archive, error) {
	files, err := scan(ctx, r, size)
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	a := &Archive{r: r, files: files}
	switch {
	case a.has(layoutFile):
		a.Format = OCI
		err = a.readOCI(platform)
	case a.has(dockerManifestFile):
		a.Format = Docker
		err = a.readDocker(ctx)
	default:
		err = fmt.Errorf("tar has neither %s nor %s, so it is no archive of images: %w", layoutFile, dockerManifestFile, errdefs.ErrInvalidArgument)
	}
	if err == nil {
		err = a.checkImages()
	}
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	return a, nil
}

// checkImages checks the number of images and of their names.
func (a *Archive) checkImages() error {
	switch n := len(a.Images); {
	case n == 0:
		return fmt.Errorf("archive has no image: %w", errdefs.ErrInvalidArgument)
	case n > maxImages:
		return fmt.Errorf("archive has %d images, at most %d are allowed: %w", n, maxImages, errdefs.ErrResourceExhausted)
	}
	for _, img := range a.Images {
		if n := len(img.Names); n > maxTags {
			return fmt.Errorf("image %s has %d names, at most %d are allowed: %w", img.Digest, n, maxTags, errdefs.ErrResourceExhausted)
		}
	}
	return nil
}

func (a *Archive) has(name string) bool { _, ok := a.files[name]; return ok }

// open returns a reader of a file in the archive.
func (a *Archive) open(f file) io.Reader { return io.NewSectionReader(a.r, f.offset, f.size) }

// readDocument reads a small file of the archive.
func (a *Archive) readDocument(name string, f file) ([]byte, error) {
	if f.size > maxDocument {
		return nil, fmt.Errorf("%q has %d bytes, at most %d are allowed: %w", name, f.size, maxDocument, errdefs.ErrResourceExhausted)
	}
	b := make([]byte, f.size)
	if _, err := a.r.ReadAt(b, f.offset); err != nil {
		return nil, fmt.Errorf("read %q: %w: %w", name, err, errdefs.ErrDataLoss)
	}
	return b, nil
}

// Document returns the blob with a digest, which must be a manifest, an index or a config. It verifies the
// digest. It returns ErrNotFound if the archive does not have the blob.
func (i *Image) Document(d digest.Digest) ([]byte, error) {
	c, ok := i.blobs[d]
	if !ok {
		return nil, fmt.Errorf("blob %s is not in the archive: %w", d, errdefs.ErrNotFound)
	}
	b := c.data
	if b == nil {
		var err error
		if b, err = i.archive.readDocument(d.String(), c.section); err != nil {
			return nil, err
		}
	}
	if d.Algorithm().FromBytes(b) != d {
		return nil, fmt.Errorf("content of blob %s does not have this digest: %w", d, errdefs.ErrDataLoss)
	}
	return b, nil
}

// Blob returns a reader and the size of the blob with a digest. The reader does not verify the digest. Blob
// returns ErrNotFound if the archive does not have the blob.
func (i *Image) Blob(d digest.Digest) (io.Reader, int64, error) {
	c, ok := i.blobs[d]
	switch {
	case !ok:
		return nil, 0, fmt.Errorf("blob %s is not in the archive: %w", d, errdefs.ErrNotFound)
	case c.data != nil:
		b, err := i.Document(d)
		return bytes.NewReader(b), int64(len(b)), err
	}
	return i.archive.open(c.section), c.section.size, nil
}
