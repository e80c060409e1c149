package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/internal/steps"
)

// layerTypes are the media types of layers that can be unpacked. The compression is detected
// from the data.
var layerTypes = map[string]bool{
	ispec.MediaTypeImageLayer:                           true,
	ispec.MediaTypeImageLayerGzip:                       true,
	ispec.MediaTypeImageLayerZstd:                       true,
	manifest.DockerV2Schema2LayerMediaType:              true,
	manifest.DockerV2SchemaLayerMediaTypeUncompressed:   true,
	"application/vnd.docker.image.rootfs.diff.tar.zstd": true,
}

// destinationReference is the image reference that containers/image copies to. Layers are
// unpacked into the layer store at once. Manifest and config are kept in memory, and result
// returns them after the copy.
type destinationReference struct {
	names  []reference.Named // the first one is the name of the reference; empty for an image without a name
	label  string            // identifies the image in errors
	lease  *layer.Lease
	watch  *watchdog
	job    *job
	totals *totals
	limits Limits

	layers atomic.Int64 // the number of layers
	// manifest, config and topManifest are written by one goroutine after all layers have been
	// copied. topManifest is the index if the name stands for an index.
	manifest, config, topManifest []byte
}

var errReadOnly = fmt.Errorf("the layer store cannot be read as an image source: %w", errdefs.ErrNotImplemented)

// The following methods implement types.ImageTransport.

func (r *destinationReference) Name() string { return "criserver" }

func (r *destinationReference) ParseReference(string) (types.ImageReference, error) {
	return nil, errReadOnly
}

func (r *destinationReference) ValidatePolicyConfigurationScope(string) error { return nil }

// The following methods implement types.ImageReference.

func (r *destinationReference) Transport() types.ImageTransport         { return r }
func (r *destinationReference) StringWithinTransport() string           { return r.label }
func (r *destinationReference) PolicyConfigurationIdentity() string     { return "" }
func (r *destinationReference) PolicyConfigurationNamespaces() []string { return nil }

func (r *destinationReference) DockerReference() reference.Named {
	if len(r.names) == 0 {
		return nil
	}
	return r.names[0]
}

func (r *destinationReference) NewImage(context.Context, *types.SystemContext) (types.ImageCloser, error) {
	return nil, errReadOnly
}

func (r *destinationReference) NewImageSource(context.Context, *types.SystemContext) (types.ImageSource, error) {
	return nil, errReadOnly
}

func (r *destinationReference) NewImageDestination(context.Context, *types.SystemContext) (types.ImageDestination, error) {
	return destination{r}, nil
}

func (r *destinationReference) DeleteImage(context.Context, *types.SystemContext) error {
	return errReadOnly
}

// destination implements types.ImageDestination.
type destination struct{ *destinationReference }

func (d destination) Reference() types.ImageReference { return d.destinationReference }
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

// TryReusingBlob reports whether the layer store has a layer. containers/image calls it for each
// layer before the layer is fetched, so it also checks whether the layer is acceptable. If
// another pull unpacks the same layer, TryReusingBlob waits for that pull.
func (d destination) TryReusingBlob(ctx context.Context, info types.BlobInfo, _ types.BlobInfoCache, _ bool) (bool, types.BlobInfo, error) {
	d.watch.addStep()
	if err := d.checkLayer(info); err != nil {
		d.watch.fail(err)
		return false, types.BlobInfo{}, err
	}
	progress := d.job.layer(info)
	found, err := d.lease.Find(ctx, info.Digest, d.watch.addBytes)
	if err != nil || found == nil {
		return false, types.BlobInfo{}, err
	}
	d.job.setState(progress, layerPresent)
	d.totals.reused.Add(1)
	info.Size = -1
	if b, ok := found.Blob(info.Digest); ok {
		info.Size = b.Size
	}
	return true, info, nil
}

// checkLayer counts the layers of the image, and refuses media types that cannot be unpacked.
func (d destination) checkLayer(info types.BlobInfo) error {
	if n := d.layers.Add(1); n > int64(d.limits.Layers) {
		return fmt.Errorf("image has more than %d layers: %w", d.limits.Layers, errdefs.ErrInvalidArgument)
	}
	switch {
	case strings.HasSuffix(info.MediaType, "+encrypted"):
		return fmt.Errorf("layer %s is encrypted: %w", info.Digest, errdefs.ErrNotImplemented)
	case len(info.URLs) > 0, strings.Contains(info.MediaType, "nondistributable"), strings.Contains(info.MediaType, ".foreign."):
		return fmt.Errorf("layer %s is a foreign layer, which is not in the registry: %w", info.Digest, errdefs.ErrNotImplemented)
	case !layerTypes[info.MediaType]:
		return fmt.Errorf("layer %s has unknown media type %q: %w", info.Digest, info.MediaType, errdefs.ErrInvalidArgument)
	}
	return nil
}

// PutBlob stores the config or a layer. The stream verifies the digest when it is read to its
// end. putConfig and Lease.Add read it to its end.
func (d destination) PutBlob(ctx context.Context, stream io.Reader, info types.BlobInfo, _ types.BlobInfoCache, isConfig bool) (types.BlobInfo, error) {
	d.watch.addStep()
	if isConfig {
		return d.putConfig(stream, info)
	}
	progress := d.job.layer(info)
	d.job.setState(progress, layerFetching)
	src := layer.Source{
		Blob: layer.Blob{Digest: info.Digest, Size: info.Size}, Reader: progressReader{stream, d.destinationReference, progress},
		Progress: d.watch.addBytes,
		Abort:    func(err error) { d.watch.fail(classify(fmt.Errorf("unpack layer %s: %w", info.Digest, err))) },
	}
	ctx, step := steps.Start(ctx, steps.ImageLayer, steps.Layer(info.Digest.String()))
	_, err := d.lease.Add(ctx, src)
	if step.End(redact(err)); err != nil {
		// Without fail, the pull would end only after the other layers have been copied.
		d.watch.fail(classify(err))
		return types.BlobInfo{}, err
	}
	d.job.setState(progress, layerDone)
	d.totals.fetched.Add(1)
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

// PutManifest keeps the manifest of the image unchanged, because its digest must not change.
func (d destination) PutManifest(_ context.Context, m []byte, instance *digest.Digest) error {
	d.watch.addStep()
	if instance != nil {
		return fmt.Errorf("store manifest %s of an index: %w", instance, errdefs.ErrNotImplemented)
	}
	d.manifest = m
	return nil
}

// Commit keeps the manifest or index that the name stands for.
func (d destination) Commit(ctx context.Context, top types.UnparsedImage) error {
	d.watch.addStep()
	b, _, err := top.Manifest(ctx)
	d.topManifest = b
	return err
}

// result returns the copied image. It checks that the layers are those in the config.
func (d *destinationReference) result() (*Result, error) {
	r := &Result{Names: d.names, Manifest: d.manifest, RawConfig: d.config}
	var errs [3]error
	r.ManifestDigest, errs[0] = manifest.Digest(d.manifest)
	r.TopDigest, errs[1] = manifest.Digest(d.topManifest)
	errs[2] = json.Unmarshal(d.config, &r.Config)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("read image %s: %w: %w", d.label, err, errdefs.ErrInvalidArgument)
	}
	m, err := manifest.FromBlob(d.manifest, manifest.GuessMIMEType(d.manifest))
	if err != nil {
		return nil, fmt.Errorf("read manifest of %s: %w: %w", d.label, err, errdefs.ErrInvalidArgument)
	}
	r.ConfigDigest = m.ConfigInfo().Digest
	if r.Config.OS != "" && r.Config.OS != runtime.GOOS {
		return nil, fmt.Errorf("image %s is for %.20s/%.20s, and the host is %s: %w", d.label, r.Config.OS, r.Config.Architecture, runtime.GOOS, errdefs.ErrNotFound)
	}
	infos, diffIDs := m.LayerInfos(), r.Config.RootFS.DiffIDs
	if len(infos) != len(diffIDs) {
		return nil, fmt.Errorf("manifest of image %s has %d layers, and config has %d diff ids: %w", d.label, len(infos), len(diffIDs), errdefs.ErrInvalidArgument)
	}
	for i, info := range infos {
		l, ok := d.lease.Layer(info.Digest)
		if !ok {
			return nil, fmt.Errorf("layer %s is missing after the copy: %w", info.Digest, errdefs.ErrInternal)
		}
		if a := diffIDs[i].Algorithm(); a != digest.Canonical {
			return nil, fmt.Errorf("image %s has a diff id with algorithm %q, want %s: %w", d.label, a, digest.Canonical, errdefs.ErrNotImplemented)
		}
		if l.DiffID != diffIDs[i] {
			return nil, fmt.Errorf("layer %s has diff id %s, and config has %s: %w", info.Digest, l.DiffID, diffIDs[i], errdefs.ErrInvalidArgument)
		}
		r.Blobs, r.Layers = append(r.Blobs, info.Digest), append(r.Layers, l)
	}
	return r, nil
}
