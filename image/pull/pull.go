// Package pull pulls images from registries into the layer store. It uses containers/image for
// registries.conf, policies, auth files, manifests and the copy, and provides the image source,
// which reads with the client of image/registry, and the destination, which is the layer store.
// It must not deal with the images in the store, which belong to its caller.
package pull

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/criserver/criserver/image/layer"
)

// Config configures a Puller. An empty path of a file or directory means the path of the system,
// unless the field says something else.
type Config struct {
	RegistriesConf    string
	RegistriesConfDir string
	PolicyPath        string // "": the policy of the system, or accept all images if there is none
	PolicyDir         string // has the policies of namespaces as NAMESPACE.json; "": there are none
	RegistriesD       string // says where signatures are stored
	AuthFile          string
	TempDir           string // for blobs that cannot be streamed
	RunDir            string // on tmpfs
	MaxParallelLayers int
	ProgressWindow    time.Duration // zero or less: a pull without progress is not cancelled
	ReportInterval    time.Duration // between two log lines of a running pull
	Limits            Limits
}

// Limits are the maximum sizes of an image.
type Limits struct {
	Layers int   // number of layers
	Config int64 // bytes; containers/image does not read more than 4 MiB
}

// Puller pulls images. Its Config does not change: see With.
type Puller struct {
	cfg   Config
	sys   *types.SystemContext // immutable
	store *layer.Store
	jobs  *jobs

	totals *totals
}

// New returns a Puller that pulls into store.
func New(cfg Config, store *layer.Store) *Puller {
	return &Puller{cfg: cfg, sys: systemContext(cfg), store: store, jobs: &jobs{}, totals: &totals{}}
}

// With returns a Puller with another Config that pulls into the same store. Running and Totals
// return the pulls of both.
func (p *Puller) With(cfg Config) *Puller {
	return &Puller{cfg: cfg, sys: systemContext(cfg), store: p.store, jobs: p.jobs, totals: p.totals}
}

// Request is a request for one image.
type Request struct {
	Ref       string
	Auth      *Auth
	Namespace string // of the pod that the image is for, or ""
	// Key identifies the pull in Progress. It is not secret.
	Key string
}

// Result is an image whose layers are in the store and held by the lease of the pull.
type Result struct {
	Names          []reference.Named // the candidate that was pulled, or the names of a loaded image, with tag or digest
	Manifest       []byte
	ManifestDigest digest.Digest
	TopDigest      digest.Digest // of the index, or of the manifest if the name does not stand for an index
	RawConfig      []byte
	ConfigDigest   digest.Digest
	Config         ispec.Image
	Blobs          []digest.Digest // of the layers, lowest first
	Layers         []*layer.Layer  // lowest first
	// Generated reports whether the manifest was made for an archive that has none. No registry has its digest.
	Generated bool
}

// Pull pulls an image. The lease holds the layers of the image.
func (p *Puller) Pull(ctx context.Context, req Request, lease *layer.Lease) (*Result, error) {
	// Changes of registries.conf take effect with the next pull. If the files are invalid, running
	// pulls keep the configuration that they have.
	if _, err := sysregistriesv2.TryUpdatingCache(p.sys); err != nil {
		return nil, fmt.Errorf("read registries.conf: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	// Without this call, the cache would grow by one entry for each file of narrowRegistries.
	sysregistriesv2.InvalidateCache()
	names, err := p.Candidates(req.Ref)
	if err != nil {
		return nil, err
	}
	result, err := p.pullCandidates(ctx, names, req, lease)
	return result, redact(err)
}

// Running returns the progress of the running pulls, the longest running first.
func (p *Puller) Running() []Progress { return p.jobs.snapshot() }

// pullCandidates pulls the first of the names that a registry has.
func (p *Puller) pullCandidates(ctx context.Context, names []reference.Named, req Request, lease *layer.Lease) (*Result, error) {
	job := p.jobs.begin(ctx, req, "pulling image", p.cfg.ReportInterval)
	defer job.end()
	var errs []error
	for _, name := range names {
		result, err := p.pullCandidate(ctx, name, req, job, lease)
		if err == nil {
			return result, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil || errors.Is(err, ErrSignatureValidationFailed) {
			break
		}
	}
	return nil, joinErrors(errs)
}

// attempt is the pull of one candidate. It is the same for all sources.
type attempt struct {
	name   reference.Named
	label  string               // identifies the image in errors
	sys    *types.SystemContext // with the credential of the request
	policy *signature.Policy
	job    *job
}

func (p *Puller) pullCandidate(ctx context.Context, name reference.Named, req Request, job *job, lease *layer.Lease) (*Result, error) {
	sys := *p.sys
	if err := p.authFor(name, req.Ref, req.Auth).applyTo(&sys, reference.Domain(name)); err != nil {
		return nil, err
	}
	policy, err := p.loadPolicy(req.Namespace)
	if err != nil {
		return nil, err
	}
	return p.pullFromSources(ctx, attempt{name, name.String(), &sys, policy, job}, lease)
}

// copyImage copies an image from one source to the layer store.
func (p *Puller) copyImage(ctx context.Context, a attempt, s pullSource, lease *layer.Lease) (*Result, error) {
	policy, err := signature.NewPolicyContext(a.policy)
	if err != nil {
		return nil, err
	}
	defer func() { _ = policy.Destroy() }()
	ref, err := docker.NewReference(a.name)
	if err != nil {
		return nil, fmt.Errorf("image name %q: %w: %w", a.name, err, errdefs.ErrInvalidArgument)
	}
	watchCtx, watch := newWatchdog(ctx, p.cfg.ProgressWindow)
	defer watch.stop()
	client, err := p.newClient(a, s, watch.addStep)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	src := &imageSource{ref: ref, name: s.ref, client: client, blobFailed: func(_ digest.Digest, err error) {
		watch.fail(classify(err)) // the copy would wait for the other layers
	}, layersKnown: a.job.expect}
	dest := &destinationReference{names: []reference.Named{a.name}, label: a.label, lease: lease, watch: watch, job: a.job, totals: p.totals, limits: p.cfg.Limits}
	from := sourceReference{src.ref, src}
	err = p.copyWithPolicy(watchCtx, a, policy, from, dest)
	if errors.Is(err, errSignaturesNotSupported) {
		if err = p.verify(watchCtx, a, s, policy, src); err == nil {
			err = p.copyVerified(watchCtx, a, from, dest)
		}
	}
	if err == nil {
		return dest.result()
	}
	if cause := context.Cause(watchCtx); cause != nil {
		// err is only the consequence of the cancellation.
		return nil, cause
	}
	if err = classify(err); errdefs.IsUnknown(err) {
		err = a.diagnose(watchCtx, src, err)
	}
	return nil, err
}

func (p *Puller) copyWithPolicy(ctx context.Context, a attempt, policy *signature.PolicyContext, from types.ImageReference, dest *destinationReference) error {
	_, err := copy.Image(ctx, policy, dest, from, &copy.Options{
		SourceCtx: a.sys, DestinationCtx: a.sys,
		RemoveSignatures:     true, // signatures are verified but not stored
		PreserveDigests:      true,
		MaxParallelDownloads: uint(p.cfg.MaxParallelLayers),
	})
	return err
}

// copyVerified copies an image that verify has accepted.
func (p *Puller) copyVerified(ctx context.Context, a attempt, from types.ImageReference, dest *destinationReference) error {
	policy, err := signature.NewPolicyContext(acceptAnything())
	if err != nil {
		return err
	}
	defer func() { _ = policy.Destroy() }()
	return p.copyWithPolicy(ctx, a, policy, from, dest)
}
