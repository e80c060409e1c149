package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Source is an image that Write adds to an archive.
type Source struct {
	Names       []string // full names with tags
	Config      []byte
	Annotations map[string]string // of the manifest; a docker-archive has none
	Layers      []Layer           // lowest first
}

// Layer is an uncompressed layer that Write adds to an archive.
type Layer struct {
	Digest digest.Digest // of the tar, which is also the diff ID
	Size   int64         // of the tar in bytes
	// Write writes the tar.
	Write func(ctx context.Context, w io.Writer) error
}

// Write writes an archive of images to w. A layer that several images have is written once. Write returns
// ErrDataLoss if a layer is not the tar with the digest.
func Write(ctx context.Context, w io.Writer, format Format, images []Source) error {
	t := &writer{Writer: tar.NewWriter(w), written: make(map[string]bool)}
	err := t.writeLayers(ctx, format, images)
	switch {
	case err != nil:
	case format == OCI:
		if err = t.finishOCI(images); err == nil {
			// Versions of docker without the image store of containerd read this file instead of the index, and so
			// does podman if the archive has several images.
			err = t.writeDockerManifest(format, images)
		}
	case format == Docker:
		err = t.writeDockerManifest(format, images)
	default:
		err = fmt.Errorf("unknown format %q: %w", format, errdefs.ErrInvalidArgument)
	}
	if err == nil {
		err = t.Close()
	}
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

// writer writes the tar of an archive.
type writer struct {
	*tar.Writer
	written map[string]bool // paths
}

func (t *writer) writeLayers(ctx context.Context, format Format, images []Source) error {
	for _, img := range images {
		for _, l := range img.Layers {
			if err := t.writeLayer(ctx, layerPath(format, l.Digest), l); err != nil {
				return err
			}
		}
	}
	return nil
}

// layerPath returns the path of a layer in an archive.
func layerPath(format Format, d digest.Digest) string {
	if format == Docker {
		return d.Encoded() + ".tar"
	}
	return blobPath(d)
}

// configPath returns the path of the config of an image in an archive.
func configPath(format Format, d digest.Digest) string {
	if format == Docker {
		return d.Encoded() + ".json"
	}
	return blobPath(d)
}

func blobPath(d digest.Digest) string {
	return path.Join(blobsDir, d.Algorithm().String(), d.Encoded())
}

// begin writes the header of a file, and reports whether the archive does not have the file yet.
func (t *writer) begin(name string, size int64) (bool, error) {
	if t.written[name] {
		return false, nil
	}
	t.written[name] = true
	return true, t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

// writeLayer writes a layer, and verifies its digest.
func (t *writer) writeLayer(ctx context.Context, name string, l Layer) error {
	if isNew, err := t.begin(name, l.Size); err != nil || !isNew {
		return err
	}
	sum := l.Digest.Algorithm().Digester()
	counter := &countingWriter{w: io.MultiWriter(t.Writer, sum.Hash())}
	err := l.Write(ctx, counter)
	if err != nil && !errors.Is(err, tar.ErrWriteTooLong) {
		return err
	}
	if err != nil || counter.n != l.Size || sum.Digest() != l.Digest {
		return fmt.Errorf("files of layer %s have changed while they were read: %w", l.Digest, errdefs.ErrDataLoss)
	}
	return nil
}

// countingWriter counts the bytes that it passes on.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// writeFile writes a file, unless the archive has it already.
func (t *writer) writeFile(name string, b []byte) error {
	isNew, err := t.begin(name, int64(len(b)))
	if err != nil || !isNew {
		return err
	}
	_, err = t.Writer.Write(b)
	return err
}

func (t *writer) writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.writeFile(name, b)
}

// writeBlob writes a blob of an image layout, and returns its descriptor.
func (t *writer) writeBlob(mediaType string, b []byte) (ispec.Descriptor, error) {
	d := ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return d, t.writeFile(blobPath(d.Digest), b)
}

// finishOCI writes everything but the layers of an image layout.
func (t *writer) finishOCI(images []Source) error {
	index := ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{}}
	for _, img := range images {
		config, err := t.writeBlob(ispec.MediaTypeImageConfig, img.Config)
		if err != nil {
			return err
		}
		m := ispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest,
			Config: config, Annotations: img.Annotations, Layers: []ispec.Descriptor{},
		}
		for _, l := range img.Layers {
			m.Layers = append(m.Layers, ispec.Descriptor{MediaType: ispec.MediaTypeImageLayer, Digest: l.Digest, Size: l.Size})
		}
		b, err := json.Marshal(m)
		if err != nil {
			return err
		}
		d, err := t.writeBlob(m.MediaType, b)
		if err != nil {
			return err
		}
		for _, name := range img.Names {
			// docker and containerd read the first annotation, and podman and skopeo the second one.
			d.Annotations = map[string]string{containerdName: name, ispec.AnnotationRefName: name}
			index.Manifests = append(index.Manifests, d)
		}
		if len(img.Names) == 0 {
			index.Manifests = append(index.Manifests, d)
		}
	}
	if err := t.writeJSON(indexFile, index); err != nil {
		return err
	}
	return t.writeJSON(layoutFile, ispec.ImageLayout{Version: ispec.ImageLayoutVersion})
}

// writeDockerManifest writes the list of images of a docker-archive, and the configs that the archive does not have
// yet.
func (t *writer) writeDockerManifest(format Format, images []Source) error {
	list := []dockerImage{}
	for _, img := range images {
		item := dockerImage{Config: configPath(format, digest.FromBytes(img.Config)), RepoTags: img.Names, Layers: []string{}}
		if err := t.writeFile(item.Config, img.Config); err != nil {
			return err
		}
		for _, l := range img.Layers {
			item.Layers = append(item.Layers, layerPath(format, l.Digest))
		}
		list = append(list, item)
	}
	return t.writeJSON(dockerManifestFile, list)
}
