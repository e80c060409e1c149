package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/ctxio"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/manifest"
)

// Files of an archive of `docker save`.
const (
	dockerManifestFile     = "manifest.json"
	dockerRepositoriesFile = "repositories"
)

// maxLinks is the maximum number of links on the way to a file.
const maxLinks = 8

// dockerImage is an entry of manifest.json. The layers are ordered from the lowest to the topmost.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerReader reads an archive of `docker save`.
type dockerReader struct {
	*Archive
	compressed map[int64]*manifest.Schema2Descriptor // compressed layers by offset
}

// readDocker reads the list of images of a docker-archive.
func (a *Archive) readDocker(ctx context.Context) error {
	f, err := a.resolve(dockerManifestFile)
	if err != nil {
		return err
	}
	b, err := a.readDocument(dockerManifestFile, f)
	if err != nil {
		return err
	}
	var list []dockerImage
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("parse %s: %w: %w", dockerManifestFile, err, errdefs.ErrInvalidArgument)
	}
	r := dockerReader{a, make(map[int64]*manifest.Schema2Descriptor)}
	for _, item := range list {
		img, err := r.image(ctx, item)
		if err != nil {
			return fmt.Errorf("image with config %.256q: %w", item.Config, err)
		}
		a.Images = append(a.Images, img)
	}
	return nil
}

// resolve returns the regular file at a path of the archive. It follows links within the archive, because
// older versions of docker store a layer that several images have once, with links to it.
func (a *Archive) resolve(name string) (file, error) {
	clean, err := localPath(name)
	if err != nil {
		return file{}, err
	}
	for range maxLinks {
		f, ok := a.files[clean]
		switch {
		case !ok:
			return file{}, fmt.Errorf("file %.256q is not in the archive: %w", clean, errdefs.ErrInvalidArgument)
		case f.link == "":
			return f, nil
		}
		clean = f.link
	}
	return file{}, fmt.Errorf("file %.256q is behind more than %d links: %w", name, maxLinks, errdefs.ErrInvalidArgument)
}

// image returns one image. A docker-archive has no manifests, so the manifest is made from the config and
// the layers. The digest of an uncompressed layer is its diff ID, which the reader of the blob verifies.
func (r dockerReader) image(ctx context.Context, item dockerImage) (*Image, error) {
	img := &Image{Names: item.RepoTags, archive: r.Archive, blobs: make(map[digest.Digest]content)}
	f, err := r.resolve(item.Config)
	if err != nil {
		return nil, err
	}
	config, err := r.readDocument(item.Config, f)
	if err != nil {
		return nil, err
	}
	diffIDs, err := DiffIDs(config)
	if err != nil {
		return nil, err
	}
	if len(diffIDs) != len(item.Layers) {
		return nil, fmt.Errorf("%s has %d layers, and config has %d diff ids: %w", dockerManifestFile, len(item.Layers), len(diffIDs), errdefs.ErrInvalidArgument)
	}
	m := manifest.Schema2{
		SchemaVersion: 2, MediaType: manifest.DockerV2Schema2MediaType, LayersDescriptors: []manifest.Schema2Descriptor{},
		ConfigDescriptor: manifest.Schema2Descriptor{
			MediaType: manifest.DockerV2Schema2ConfigMediaType, Size: int64(len(config)), Digest: digest.FromBytes(config),
		},
	}
	img.blobs[m.ConfigDescriptor.Digest] = content{data: config}
	for n, name := range item.Layers {
		f, err := r.resolve(name)
		if err != nil {
			return nil, err
		}
		d, err := r.layer(ctx, f, diffIDs[n])
		if err != nil {
			return nil, fmt.Errorf("layer %.256q: %w", name, err)
		}
		img.blobs[d.Digest] = content{section: f}
		m.LayersDescriptors = append(m.LayersDescriptors, *d)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	img.Digest = digest.FromBytes(b)
	img.blobs[img.Digest] = content{data: b}
	return img, nil
}

// DiffIDs returns the diff IDs in the config of an image. It returns ErrInvalidArgument if the config is malformed.
func DiffIDs(config []byte) ([]digest.Digest, error) {
	var c struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("parse config: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return nil, fmt.Errorf("config has the diff id %.100q: %w: %w", d, err, errdefs.ErrInvalidArgument)
		}
	}
	return c.RootFS.DiffIDs, nil
}

// layer returns the descriptor of a layer. Some tools store compressed layers, whose digests are not in
// the archive.
func (r dockerReader) layer(ctx context.Context, f file, diffID digest.Digest) (*manifest.Schema2Descriptor, error) {
	magic := make([]byte, min(f.size, magicLength))
	if _, err := r.r.ReadAt(magic, f.offset); err != nil {
		return nil, fmt.Errorf("read layer: %w: %w", err, errdefs.ErrDataLoss)
	}
	var mediaType string
	switch detect(magic) {
	case notCompressed:
		return &manifest.Schema2Descriptor{MediaType: manifest.DockerV2SchemaLayerMediaTypeUncompressed, Size: f.size, Digest: diffID}, nil
	case gzipFormat:
		mediaType = manifest.DockerV2Schema2LayerMediaType
	case zstdFormat:
		mediaType = dockerZstdLayer
	case xzFormat, bzip2Format, lz4Format:
		return nil, errLayerCompression
	}
	if d := r.compressed[f.offset]; d != nil {
		return d, nil
	}
	sum := digest.Canonical.Digester()
	if _, err := io.Copy(sum.Hash(), ctxio.NewReader(ctx, r.open(f))); err != nil {
		return nil, err
	}
	d := &manifest.Schema2Descriptor{MediaType: mediaType, Size: f.size, Digest: sum.Digest()}
	r.compressed[f.offset] = d
	return d, nil
}

// dockerZstdLayer is the media type of a layer that is compressed with zstd, in a manifest of docker.
const dockerZstdLayer = "application/vnd.docker.image.rootfs.diff.tar.zstd"
