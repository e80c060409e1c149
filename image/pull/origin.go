package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"

	"github.com/criserver/criserver/image/registry"
)

// origin is the image reference that the copy of containers/image gets. Its name is that of
// the docker transport, so that policies apply. Its source reads with the client of
// image/registry, which repeats requests, resumes bodies and sends credentials to their
// host only.
type origin struct {
	types.ImageReference
	src *originSource
}

func (o origin) NewImageSource(ctx context.Context, _ *types.SystemContext) (types.ImageSource, error) {
	// Without the manifest, it is not known whether the image is there.
	_, _, err := o.src.GetManifest(ctx, nil)
	return o.src, err
}

// errSignatures is the error of a policy that demands signatures. See
// Puller.verify.
var errSignatures = errors.New("signatures are read by another source")

// originSource is types.ImageSource over a client.
type originSource struct {
	ref    types.ImageReference
	name   reference.Named // what is really asked for
	client *registry.Client
	// failed is called when a blob cannot be read. The copy reports such an error only
	// after the other layers have been copied.
	failed func(blob digest.Digest, err error)

	mu sync.Mutex // guards what follows; held while the manifest is read
	// body is the manifest of name. It is read once, because a tag can move.
	body      []byte
	mediaType string
}

func (s *originSource) Reference() types.ImageReference { return s.ref }
func (s *originSource) Close() error                    { return nil } // see Puller.copyImage
func (s *originSource) HasThreadSafeGetBlob() bool      { return true }

func (s *originSource) GetManifest(ctx context.Context, instance *digest.Digest) ([]byte, string, error) {
	if instance != nil {
		if err := checkDigest(*instance); err != nil {
			return nil, "", err
		}
		return s.manifest(ctx, instance.String())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.body == nil {
		b, mediaType, err := s.manifest(ctx, tagOrDigest(s.name))
		if err != nil {
			return nil, "", err
		}
		s.body, s.mediaType = b, mediaType
	}
	return s.body, s.mediaType, nil
}

// manifest reads a manifest. Some servers send the same media type for all files. If the
// media type is not one of a manifest, the content decides.
func (s *originSource) manifest(ctx context.Context, ref string) ([]byte, string, error) {
	b, mediaType, err := s.client.Manifest(ctx, ref, manifest.DefaultRequestedManifestMIMETypes)
	if err != nil {
		return nil, "", err
	}
	if !slices.Contains(manifest.DefaultRequestedManifestMIMETypes, mediaType) {
		if guess := manifest.GuessMIMEType(b); guess != "" {
			mediaType = guess
		}
	}
	return b, mediaType, nil
}

// checkDigest checks a digest that a manifest names.
func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %.100q in the manifest: %w: %w", d, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

func tagOrDigest(name reference.Named) string {
	switch n := name.(type) {
	case reference.Digested:
		return n.Digest().String()
	case reference.Tagged:
		return n.Tag()
	}
	return "latest"
}

func (s *originSource) GetBlob(ctx context.Context, info types.BlobInfo, _ types.BlobInfoCache) (io.ReadCloser, int64, error) {
	err := checkDigest(info.Digest)
	if err == nil {
		var body io.ReadCloser
		var size int64
		if body, size, err = s.client.Blob(ctx, info.Digest, info.Size); err == nil {
			return watched{body, s, info.Digest}, size, nil
		}
	}
	s.failed(info.Digest, err)
	return nil, 0, err
}

func (s *originSource) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) {
	return nil, errSignatures
}

func (s *originSource) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}

// watched reports a read error of a blob to the source.
type watched struct {
	io.ReadCloser
	src  *originSource
	blob digest.Digest
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.src.failed(w.blob, err)
	}
	return n, err
}
