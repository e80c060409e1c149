// Package pull fetches images from registries into the layer store, through
// containers/image: it brings registries.conf, policy.json, the auth files and
// the protocol, and this package the store as the place to copy to.
package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/criserver/criserver/image/layer"
)

// Config is what a Puller needs.
type Config struct {
	RegistriesConf    string // "": the system's
	RegistriesConfDir string // "": the system's
	PolicyPath        string // "": the system's, or accept all when there is none
	PolicyDir         string // NAMESPACE.json in it is the policy for pods of that namespace; "": none
	RegistriesD       string // where signatures are kept; "": the system's registries.d
	AuthFile          string // "": the system's
	TempDir           string // for what cannot be streamed
	RunDir            string // on tmpfs
	MaxParallelLayers int
	ProgressWindow    time.Duration // not above zero: a pull may stand still for ever
	ReportInterval    time.Duration // between two lines in the log on a running pull
	Limits            Limits
}

// Limits bound an image.
type Limits struct {
	Layers int
	Config int64 // bytes; containers/image takes 4 MiB at most anyway
}

// Puller pulls images.
type Puller struct {
	cfg   Config
	sys   *types.SystemContext // never written to
	store *layer.Store
	jobs  jobs
}

// New returns a Puller into store.
func New(cfg Config, store *layer.Store) *Puller {
	return &Puller{cfg: cfg, sys: systemContext(cfg), store: store}
}

// Request asks for one image.
type Request struct {
	Ref  string
	Auth *Auth
	// Namespace is the pod's that the image is for, or "".
	Namespace string
	// Key is what Progress has to tell pulls apart by. It is no secret.
	Key string
}

// Result is an image whose layers are all in the store, held by Lease.
type Result struct {
	Name           reference.Named // the candidate that was found, with tag or digest
	Manifest       []byte
	ManifestDigest digest.Digest
	TopDigest      digest.Digest // of the index, if the name stood for one; else the manifest's
	RawConfig      []byte
	ConfigDigest   digest.Digest
	Config         ispec.Image
	Blobs          []digest.Digest // of the layers, lowest first
	Layers         []*layer.Layer  // likewise
}

// Pull fetches an image. Its layers stay held by lease.
func (p *Puller) Pull(ctx context.Context, req Request, lease *layer.Lease) (*Result, error) {
	// What an administrator has changed takes effect with the next pull. Files
	// that are no good leave those under way with what they have.
	if _, err := sysregistriesv2.TryUpdatingCache(p.sys); err != nil {
		return nil, fmt.Errorf("read registries.conf: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	// The files of narrow, each with a path of its own, must not pile up.
	sysregistriesv2.InvalidateCache()
	names, err := p.Candidates(req.Ref)
	if err != nil {
		return nil, err
	}
	result, err := p.fromNames(ctx, names, req, lease)
	return result, scrub(err)
}

// fromNames pulls the first of the names that can be had.
func (p *Puller) fromNames(ctx context.Context, names []reference.Named, req Request, lease *layer.Lease) (*Result, error) {
	job := p.jobs.begin(ctx, req, p.cfg.ReportInterval)
	defer job.end()
	var errs []error
	for _, name := range names {
		result, err := p.pull(ctx, name, req, job, lease)
		if err == nil {
			return result, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil || errors.Is(err, ErrSignatureValidationFailed) {
			break
		}
	}
	return nil, inOrder(errs)
}

// Running describes the pulls that are under way, the longest running first.
func (p *Puller) Running() []Progress { return p.jobs.snapshot() }

// authFor returns the request's credential if it may be shown to the registry
// of name.
func (p *Puller) authFor(name reference.Named, ref string, auth *Auth) *Auth {
	if auth == nil || auth.ServerAddress != "" || reference.Domain(name) == credentialHost(ref) {
		return auth
	}
	return nil
}

// attempt is what a pull of one name has for all its sources.
type attempt struct {
	name   reference.Named
	sys    *types.SystemContext
	policy *signature.Policy
	job    *job
}

func (p *Puller) pull(ctx context.Context, name reference.Named, req Request, job *job, lease *layer.Lease) (*Result, error) {
	sys := *p.sys
	if err := p.authFor(name, req.Ref, req.Auth).applyTo(&sys, reference.Domain(name)); err != nil {
		return nil, err
	}
	policy, err := p.policy(req.Namespace)
	if err != nil {
		return nil, err
	}
	return p.fromSources(ctx, attempt{name, &sys, policy, job}, lease)
}

// copyImage copies from one source.
func (p *Puller) copyImage(ctx context.Context, a attempt, s source, lease *layer.Lease) (*Result, error) {
	policy, err := signature.NewPolicyContext(a.policy)
	if err != nil {
		return nil, err
	}
	defer func() { _ = policy.Destroy() }()
	ref, err := docker.NewReference(a.name)
	if err != nil {
		return nil, fmt.Errorf("image name %q: %w: %w", a.name, err, errdefs.ErrInvalidArgument)
	}
	wctx, w := newWatch(ctx, p.cfg.ProgressWindow)
	defer w.stop()
	client, err := p.connect(a, s, w.step)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	src := &originSource{ref: ref, name: s.ref, client: client, failed: func(_ digest.Digest, err error) {
		w.fail(classify(err)) // the other layers are not worth waiting for
	}}
	t := &target{name: a.name, lease: lease, watch: w, job: a.job, limits: p.cfg.Limits}
	err = p.copyFrom(wctx, a, policy, src, t)
	if errors.Is(err, errSignatures) {
		if err = p.verify(wctx, a, s, policy, src); err == nil {
			err = p.copyAccepted(wctx, a, src, t)
		}
	}
	if err == nil {
		return t.result()
	}
	if cause := context.Cause(wctx); cause != nil {
		// The reason is what ended the context, not that the rest then ended.
		return nil, cause
	}
	if err = classify(err); errdefs.IsUnknown(err) {
		err = a.diagnose(wctx, src, err)
	}
	return nil, err
}

func (p *Puller) copyFrom(ctx context.Context, a attempt, policy *signature.PolicyContext, src *originSource, t *target) error {
	_, err := copy.Image(ctx, policy, t, origin{src.ref, src}, &copy.Options{
		SourceCtx: a.sys, DestinationCtx: a.sys,
		RemoveSignatures:     true, // they are verified, not kept
		PreserveDigests:      true,
		MaxParallelDownloads: uint(p.cfg.MaxParallelLayers),
	})
	return err
}

// copyAccepted copies an image that the policy of the pull has accepted.
func (p *Puller) copyAccepted(ctx context.Context, a attempt, src *originSource, t *target) error {
	policy, err := signature.NewPolicyContext(acceptAnything())
	if err != nil {
		return err
	}
	defer func() { _ = policy.Destroy() }()
	return p.copyFrom(ctx, a, policy, src, t)
}

// result checks that the parts make the image that the config describes.
func (t *target) result() (*Result, error) {
	r := &Result{Name: t.name, Manifest: t.manifest, RawConfig: t.config}
	var errs [3]error
	r.ManifestDigest, errs[0] = manifest.Digest(t.manifest)
	r.TopDigest, errs[1] = manifest.Digest(t.top)
	errs[2] = json.Unmarshal(t.config, &r.Config)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("read image %s: %w: %w", t.name, err, errdefs.ErrInvalidArgument)
	}
	m, err := manifest.FromBlob(t.manifest, manifest.GuessMIMEType(t.manifest))
	if err != nil {
		return nil, fmt.Errorf("read manifest of %s: %w: %w", t.name, err, errdefs.ErrInvalidArgument)
	}
	r.ConfigDigest = m.ConfigInfo().Digest
	if r.Config.OS != "" && r.Config.OS != runtime.GOOS {
		return nil, fmt.Errorf("image %s is for %.20s/%.20s, and this is %s: %w", t.name, r.Config.OS, r.Config.Architecture, runtime.GOOS, errdefs.ErrNotFound)
	}
	infos, diffIDs := m.LayerInfos(), r.Config.RootFS.DiffIDs
	if len(infos) != len(diffIDs) {
		return nil, fmt.Errorf("image %s has %d layers and %d diff ids: %w", t.name, len(infos), len(diffIDs), errdefs.ErrInvalidArgument)
	}
	for i, info := range infos {
		l, ok := t.lease.Layer(info.Digest)
		if !ok {
			return nil, fmt.Errorf("layer %s was not stored: %w", info.Digest, errdefs.ErrInternal)
		}
		if a := diffIDs[i].Algorithm(); a != digest.Canonical {
			return nil, fmt.Errorf("image %s has a diff id by %q, which must be by %s: %w", t.name, a, digest.Canonical, errdefs.ErrNotImplemented)
		}
		if l.DiffID != diffIDs[i] {
			return nil, fmt.Errorf("layer %s unpacks to %s, and should to %s: %w", info.Digest, l.DiffID, diffIDs[i], errdefs.ErrInvalidArgument)
		}
		r.Blobs, r.Layers = append(r.Blobs, info.Digest), append(r.Layers, l)
	}
	return r, nil
}
