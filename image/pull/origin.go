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

// origin is the image in a registry as containers/image's copy sees it: a
// reference of the docker transport, by which the policy goes, with a client of
// this project behind it. That one repeats requests, resumes bodies and keeps
// credentials to their host.
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
	// failed is told of a blob that cannot be had: the copy does not tell the
	// destination, and goes on with the other layers.
	failed func(blob digest.Digest, err error)

	mu sync.Mutex // guards what follows; held while the manifest is read
	// body is the manifest of name, which is read once, as a tag can move.
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

// manifest reads a manifest. A media type that no manifest has says nothing: some
// servers call all files the same. Then the manifest itself is looked at.
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

// watched tells of the error that a blob ends with.
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
