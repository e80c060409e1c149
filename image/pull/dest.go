package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"

	"github.com/criserver/criserver/image/layer"
)

// layerTypes are the media types of layers that can be unpacked. What the data
// are compressed with is seen from the data.
var layerTypes = map[string]bool{
	ispec.MediaTypeImageLayer:                           true,
	ispec.MediaTypeImageLayerGzip:                       true,
	ispec.MediaTypeImageLayerZstd:                       true,
	manifest.DockerV2Schema2LayerMediaType:              true,
	manifest.DockerV2SchemaLayerMediaTypeUncompressed:   true,
	"application/vnd.docker.image.rootfs.diff.tar.zstd": true,
}

// target is the store as containers/image's copy sees it: a reference to an
// image that is to be, and the destination of its parts. Layers go to the
// store at once; manifest and config stay in memory until the copy is complete.
type target struct {
	name   reference.Named
	lease  *layer.Lease
	watch  *watch
	job    *job
	limits Limits

	layers atomic.Int64
	// Written by one goroutine after the layers are done.
	manifest, config, top []byte
}

var errReadOnly = fmt.Errorf("the store is no source: %w", errdefs.ErrNotImplemented)

// types.ImageTransport.

func (t *target) Name() string { return "criserver" }

func (t *target) ParseReference(string) (types.ImageReference, error) { return nil, errReadOnly }

func (t *target) ValidatePolicyConfigurationScope(string) error { return nil }

// types.ImageReference.

func (t *target) Transport() types.ImageTransport         { return t }
func (t *target) StringWithinTransport() string           { return t.name.String() }
func (t *target) DockerReference() reference.Named        { return t.name }
func (t *target) PolicyConfigurationIdentity() string     { return "" }
func (t *target) PolicyConfigurationNamespaces() []string { return nil }

func (t *target) NewImage(context.Context, *types.SystemContext) (types.ImageCloser, error) {
	return nil, errReadOnly
}

func (t *target) NewImageSource(context.Context, *types.SystemContext) (types.ImageSource, error) {
	return nil, errReadOnly
}

func (t *target) NewImageDestination(context.Context, *types.SystemContext) (types.ImageDestination, error) {
	return destination{t}, nil
}

func (t *target) DeleteImage(context.Context, *types.SystemContext) error { return errReadOnly }

// destination is types.ImageDestination over a target.
type destination struct{ *target }

func (d destination) Reference() types.ImageReference { return d.target }
func (d destination) Close() error                    { return nil }

func (d destination) SupportedManifestMIMETypes() []string {
	return []string{ispec.MediaTypeImageManifest, manifest.DockerV2Schema2MediaType}
}

func (d destination) SupportsSignatures(context.Context) error                      { return nil }
func (d destination) DesiredLayerCompression() types.LayerCompression               { return types.PreserveOriginal }
func (d destination) AcceptsForeignLayerURLs() bool                                 { return false }
func (d destination) MustMatchRuntimeOS() bool                                      { return true }
func (d destination) IgnoresEmbeddedDockerReference() bool                          { return true }
func (d destination) HasThreadSafePutBlob() bool                                    { return true }
func (d destination) PutSignatures(context.Context, [][]byte, *digest.Digest) error { return nil }

// TryReusingBlob is asked for each layer before it is fetched, so it is also
// where a layer is refused.
func (d destination) TryReusingBlob(ctx context.Context, info types.BlobInfo, _ types.BlobInfoCache, _ bool) (bool, types.BlobInfo, error) {
	d.watch.step()
	if err := d.checkLayer(info); err != nil {
		d.watch.fail(err)
		return false, types.BlobInfo{}, err
	}
	noted := d.job.layer(info)
	found, err := d.lease.Find(ctx, info.Digest, d.watch.add)
	if err != nil || found == nil {
		return false, types.BlobInfo{}, err
	}
	d.job.enter(noted, layerPresent)
	info.Size = -1
	if b, ok := found.Blob(info.Digest); ok {
		info.Size = b.Size
	}
	return true, info, nil
}

func (d destination) checkLayer(info types.BlobInfo) error {
	if n := d.layers.Add(1); n > int64(d.limits.Layers) {
		return fmt.Errorf("image has more than %d layers: %w", d.limits.Layers, errdefs.ErrInvalidArgument)
	}
	switch {
	case strings.HasSuffix(info.MediaType, "+encrypted"):
		return fmt.Errorf("layer %s is encrypted: %w", info.Digest, errdefs.ErrNotImplemented)
	case len(info.URLs) > 0, strings.Contains(info.MediaType, "nondistributable"), strings.Contains(info.MediaType, ".foreign."):
		return fmt.Errorf("layer %s is a foreign layer, kept elsewhere: %w", info.Digest, errdefs.ErrNotImplemented)
	case !layerTypes[info.MediaType]:
		return fmt.Errorf("layer %s is of unknown media type %q: %w", info.Digest, info.MediaType, errdefs.ErrInvalidArgument)
	}
	return nil
}

// PutBlob takes the config or a layer. The stream compares the digest with the
// one asked for when it is read to its end, which both do.
func (d destination) PutBlob(ctx context.Context, stream io.Reader, info types.BlobInfo, _ types.BlobInfoCache, isConfig bool) (types.BlobInfo, error) {
	d.watch.step()
	if isConfig {
		return d.putConfig(stream, info)
	}
	noted := d.job.layer(info)
	d.job.enter(noted, layerFetching)
	src := layer.Source{
		Blob: layer.Blob{Digest: info.Digest, Size: info.Size}, Reader: counted{stream, d.target, noted},
		Progress: d.watch.add,
		Abort:    func(err error) { d.watch.fail(classify(fmt.Errorf("unpack layer %s: %w", info.Digest, err))) },
	}
	if _, err := d.lease.Add(ctx, src); err != nil {
		// The other layers are not worth waiting for.
		d.watch.fail(classify(err))
		return types.BlobInfo{}, err
	}
	d.job.enter(noted, layerDone)
	return info, nil
}

func (d destination) putConfig(stream io.Reader, info types.BlobInfo) (types.BlobInfo, error) {
	b, err := io.ReadAll(io.LimitReader(stream, d.limits.Config+1))
	if err != nil {
		return types.BlobInfo{}, err
	}
	if int64(len(b)) > d.limits.Config {
		return types.BlobInfo{}, fmt.Errorf("image config is larger than %d bytes: %w", d.limits.Config, errdefs.ErrResourceExhausted)
	}
	d.config = b
	info.Size = int64(len(b))
	return info, nil
}

// PutManifest takes the manifest of the image, byte for byte as it was signed.
func (d destination) PutManifest(_ context.Context, m []byte, instance *digest.Digest) error {
	d.watch.step()
	if instance != nil {
		return errors.New("store an index: not implemented")
	}
	d.manifest = m
	return nil
}

// Commit notes what the name stood for, perhaps an index.
func (d destination) Commit(ctx context.Context, top types.UnparsedImage) error {
	d.watch.step()
	b, _, err := top.Manifest(ctx)
	d.top = b
	return err
}
