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
	"github.com/criserver/criserver/internal/steps"
)

// sourceReference is the image reference that containers/image copies from. It has the name of
// the docker transport, so that policies apply. Its image source reads with the client of
// image/registry, which repeats requests, resumes blobs and sends a credential only to the host
// that the credential is for.
type sourceReference struct {
	types.ImageReference
	src *imageSource
}

func (r sourceReference) NewImageSource(ctx context.Context, _ *types.SystemContext) (types.ImageSource, error) {
	// The manifest shows whether the image exists.
	_, _, err := r.src.GetManifest(ctx, nil)
	return r.src, err
}

// errSignaturesNotSupported is the error of a copy whose policy demands signatures. See
// Puller.verify.
var errSignaturesNotSupported = errors.New("the image source does not read signatures")

// imageSource implements types.ImageSource with a registry client.
type imageSource struct {
	ref    types.ImageReference
	name   reference.Named // the name of the image at the pull source
	client *registry.Client
	// blobFailed is called when a blob cannot be read, because the copy reports such an error
	// only after the other layers have been copied.
	blobFailed func(blob digest.Digest, err error)
	// layersKnown is called with the layers of each manifest that is read.
	layersKnown func([]manifest.LayerInfo)

	mu sync.Mutex // guards the fields below; held while the manifest is read
	// topManifest is the manifest or index of name. It is read once, because a tag can move.
	topManifest []byte
	mediaType   string
}

func (s *imageSource) Reference() types.ImageReference { return s.ref }
func (s *imageSource) Close() error                    { return nil } // Puller.copyImage closes the client
func (s *imageSource) HasThreadSafeGetBlob() bool      { return true }

func (s *imageSource) GetManifest(ctx context.Context, instance *digest.Digest) ([]byte, string, error) {
	if instance != nil {
		if err := checkDigest(*instance); err != nil {
			return nil, "", err
		}
		return s.readManifest(ctx, instance.String())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topManifest == nil {
		b, mediaType, err := s.readManifest(ctx, tagOrDigest(s.name))
		if err != nil {
			return nil, "", err
		}
		s.topManifest, s.mediaType = b, mediaType
	}
	return s.topManifest, s.mediaType, nil
}

// readManifest reads a manifest. Some servers send the same media type for all files. If the
// media type is not a type of manifests, readManifest detects it from the content.
func (s *imageSource) readManifest(ctx context.Context, ref string) ([]byte, string, error) {
	ctx, step := steps.Start(ctx, steps.ImageManifest)
	b, mediaType, err := s.client.Manifest(ctx, ref, manifest.DefaultRequestedManifestMIMETypes)
	if step.End(redact(err)); err != nil {
		return nil, "", err
	}
	if !slices.Contains(manifest.DefaultRequestedManifestMIMETypes, mediaType) {
		if guess := manifest.GuessMIMEType(b); guess != "" {
			mediaType = guess
		}
	}
	if !manifest.MIMETypeIsMultiImage(mediaType) {
		// The copy reports manifests that cannot be parsed.
		if m, err := manifest.FromBlob(b, mediaType); err == nil {
			s.layersKnown(m.LayerInfos())
		}
	}
	return b, mediaType, nil
}

// checkDigest validates a digest from a manifest.
func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("invalid digest %.100q in manifest: %w: %w", d, err, errdefs.ErrInvalidArgument)
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

func (s *imageSource) GetBlob(ctx context.Context, info types.BlobInfo, _ types.BlobInfoCache) (io.ReadCloser, int64, error) {
	err := checkDigest(info.Digest)
	if err == nil {
		var body io.ReadCloser
		var size int64
		if body, size, err = s.client.Blob(ctx, info.Digest, info.Size); err == nil {
			return blobReader{body, s, info.Digest}, size, nil
		}
	}
	s.blobFailed(info.Digest, err)
	return nil, 0, err
}

func (s *imageSource) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) {
	return nil, errSignaturesNotSupported
}

func (s *imageSource) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}

// blobReader reports read errors of a blob to the image source.
type blobReader struct {
	io.ReadCloser
	src  *imageSource
	blob digest.Digest
}

func (r blobReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.src.blobFailed(r.blob, err)
	}
	return n, err
}
