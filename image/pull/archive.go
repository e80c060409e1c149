package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/criserver/criserver/image/archive"
	"github.com/criserver/criserver/image/layer"
)

// LoadRequest is a request for one image of an archive.
type LoadRequest struct {
	Archive *archive.Archive
	Image   *archive.Image
	Names   []reference.Named // of the image in the store
	// Label identifies the image in logs and errors.
	Label string
	// Path is the path of the archive on the host, for the scopes of policies. "": a client has sent the archive.
	Path string
	// Key identifies the load in Progress.
	Key string
}

// Load copies an image of an archive to the layer store, like Pull. Load does not unpack a layer that the store has,
// even if the store has unpacked the layer from another blob. The format of the archive is the transport for which the
// policy is evaluated.
func (p *Puller) Load(ctx context.Context, req LoadRequest, lease *layer.Lease) (*Result, error) {
	job := p.jobs.begin(ctx, Request{Ref: req.Label, Key: req.Key}, "loading image", p.cfg.ReportInterval)
	defer job.end()
	defer lease.ReleaseReservations()
	result, err := p.load(ctx, req, job, lease)
	return result, redact(err)
}

// load evaluates the signature policy and copies the image to the layer store.
func (p *Puller) load(ctx context.Context, req LoadRequest, job *job, lease *layer.Lease) (*Result, error) {
	rules, err := p.loadPolicy("")
	if err != nil {
		return nil, err
	}
	policy, err := signature.NewPolicyContext(rules)
	if err != nil {
		return nil, err
	}
	defer func() { _ = policy.Destroy() }()
	watchCtx, watch := newWatchdog(ctx, 0) // a slow disk must not end the load
	defer watch.stop()
	src := &archiveSource{req: req, job: job, lease: lease, failed: func(err error) { watch.fail(classifyLoad(err)) }}
	dest := &destinationReference{names: req.Names, label: req.Label, lease: lease, watch: watch, job: job, totals: &totals{}, limits: p.cfg.Limits}
	a := attempt{label: req.Label, sys: p.sys}
	err = p.copyWithPolicy(watchCtx, a, policy, src, dest)
	if err == nil {
		var result *Result
		if result, err = dest.result(); err == nil {
			result.Generated = req.Archive.Format == archive.Docker
			return result, nil
		}
	}
	if cause := context.Cause(watchCtx); cause != nil {
		return nil, cause // err is only the consequence of the cancellation
	}
	if err = classifyLoad(err); errdefs.IsUnknown(err) {
		err = a.diagnose(watchCtx, src, err)
	}
	return nil, err
}

// classifyLoad adds a class to the error of a load, as classify does. Truncated data are ErrDataLoss and not
// ErrUnavailable, because a load uses no registry.
func classifyLoad(err error) error {
	var requirement signature.PolicyRequirementError
	switch {
	case errors.As(err, &requirement), hasClass(err):
		return classify(err)
	case errors.Is(err, layer.ErrSource), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", err, errdefs.ErrDataLoss)
	}
	return classify(err)
}

// archiveSource is the image source and the image reference of an image in an archive.
type archiveSource struct {
	req    LoadRequest
	job    *job
	lease  *layer.Lease
	failed func(error) // called when a blob cannot be read
}

// The following methods implement types.ImageTransport.

func (s *archiveSource) Name() string                                  { return string(s.req.Archive.Format) }
func (s *archiveSource) ValidatePolicyConfigurationScope(string) error { return nil }

func (s *archiveSource) ParseReference(string) (types.ImageReference, error) {
	return nil, errNoDestination
}

// The following methods implement types.ImageReference.

func (s *archiveSource) Transport() types.ImageTransport  { return s }
func (s *archiveSource) DockerReference() reference.Named { return nil }
func (s *archiveSource) StringWithinTransport() string    { return s.req.Label }

// PolicyConfigurationIdentity returns the most specific scope: the path of an oci-archive on the host. As in other
// tools, a docker-archive has only the scope "", which stands for all archives.
func (s *archiveSource) PolicyConfigurationIdentity() string {
	if s.req.Archive.Format == archive.OCI {
		return s.req.Path
	}
	return ""
}

// PolicyConfigurationNamespaces returns the less specific scopes: the directories above the path.
func (s *archiveSource) PolicyConfigurationNamespaces() []string {
	var scopes []string
	for dir := path.Dir(s.PolicyConfigurationIdentity()); len(dir) > 1; dir = path.Dir(dir) {
		scopes = append(scopes, dir)
	}
	return scopes
}

var errNoDestination = fmt.Errorf("an archive is only read: %w", errdefs.ErrNotImplemented)

func (s *archiveSource) NewImage(context.Context, *types.SystemContext) (types.ImageCloser, error) {
	return nil, errNoDestination
}

func (s *archiveSource) NewImageSource(context.Context, *types.SystemContext) (types.ImageSource, error) {
	return s, nil
}

func (s *archiveSource) NewImageDestination(context.Context, *types.SystemContext) (types.ImageDestination, error) {
	return nil, errNoDestination
}

func (s *archiveSource) DeleteImage(context.Context, *types.SystemContext) error {
	return errNoDestination
}

// The following methods implement types.ImageSource.

func (s *archiveSource) Reference() types.ImageReference { return s }
func (s *archiveSource) Close() error                    { return nil }
func (s *archiveSource) HasThreadSafeGetBlob() bool      { return true }

// GetManifest returns a manifest, whose digest it verifies.
func (s *archiveSource) GetManifest(_ context.Context, instance *digest.Digest) ([]byte, string, error) {
	d := s.req.Image.Digest
	if instance != nil {
		d = *instance
	}
	if err := checkDigest(d); err != nil {
		return nil, "", err
	}
	b, err := s.req.Image.Document(d)
	switch {
	case errdefs.IsNotFound(err) && d != s.req.Image.Digest:
		return nil, "", fmt.Errorf("archive has the index of an image for several platforms, but not the image for the platform of this host: manifest %s: %w", d, errdefs.ErrNotFound)
	case err != nil:
		return nil, "", fmt.Errorf("read manifest: %w", err)
	}
	mediaType := manifest.GuessMIMEType(b)
	if mediaType != "" && !manifest.MIMETypeIsMultiImage(mediaType) {
		// The copy reports manifests that cannot be parsed.
		if m, err := manifest.FromBlob(b, mediaType); err == nil {
			s.job.expect(m.LayerInfos())
			s.expectLayers(m)
		}
	}
	return b, mediaType, nil
}

// expectLayers passes the diff IDs in the config to the lease. A config that cannot be read is an error of the copy.
func (s *archiveSource) expectLayers(m manifest.Manifest) {
	config, err := s.req.Image.Document(m.ConfigInfo().Digest)
	if err != nil {
		return
	}
	diffIDs, err := archive.DiffIDs(config)
	infos := m.LayerInfos()
	if err != nil || len(diffIDs) != len(infos) {
		return
	}
	for i, info := range infos {
		s.lease.Expect(info.Digest, diffIDs[i])
	}
}

// GetBlob returns a blob. The copy verifies its digest.
func (s *archiveSource) GetBlob(_ context.Context, info types.BlobInfo, _ types.BlobInfoCache) (io.ReadCloser, int64, error) {
	err := checkDigest(info.Digest)
	if err == nil {
		var r io.Reader
		var size int64
		if r, size, err = s.req.Image.Blob(info.Digest); err == nil {
			if info.Size < 0 || info.Size == size {
				return io.NopCloser(r), size, nil
			}
			err = fmt.Errorf("blob %s has %d bytes, and the descriptor of the blob states %d: %w", info.Digest, size, info.Size, errdefs.ErrDataLoss)
		}
	}
	s.failed(err)
	return nil, 0, err
}

// GetSignatures returns no signatures. A policy that requires signatures refuses the image.
func (s *archiveSource) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) {
	return nil, nil
}

func (s *archiveSource) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}
