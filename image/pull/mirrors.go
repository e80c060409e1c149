package pull

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/internal/steps"
)

// pullSource is a place that an image can be pulled from: a mirror, or the registry itself.
type pullSource struct {
	ref      reference.Named // the name of the image at this source
	endpoint sysregistriesv2.Endpoint
	only     bool // there is no other source, so registries.conf need not be narrowed
	last     bool
}

// pullSources returns the sources of name, with the registry itself as the last one.
// registries.conf can limit a mirror to tags or to digests.
func (p *Puller) pullSources(name reference.Named) ([]pullSource, error) {
	registry, err := sysregistriesv2.FindRegistry(p.sys, name.Name())
	switch {
	case err != nil:
		return nil, fmt.Errorf("read registries.conf: %w: %w", err, errdefs.ErrFailedPrecondition)
	case registry == nil:
		return []pullSource{{ref: name, only: true, last: true}}, nil
	case registry.Blocked:
		return nil, fmt.Errorf("registry %q of image %s is blocked in registries.conf: %w", registry.Prefix, name, errdefs.ErrPermissionDenied)
	}
	found, err := registry.PullSourcesFromReference(name)
	if err != nil {
		return nil, fmt.Errorf("registry %q in registries.conf: %w: %w", registry.Prefix, err, errdefs.ErrFailedPrecondition)
	}
	sources := make([]pullSource, 0, len(found))
	for i, f := range found {
		f.Endpoint.Location = reference.TrimNamed(f.Reference).String()
		f.Endpoint.PullFromMirror = ""
		sources = append(sources, pullSource{f.Reference, f.Endpoint, len(found) == 1, i == len(found)-1})
	}
	return sources, nil
}

// pullFromSources tries the sources one after the other. containers/image tries another source
// only until one of them has sent a manifest, so that a mirror that stalls, lacks a layer or
// sends wrong bytes would fail the pull. A layer that one source has sent is not fetched again
// from the next source.
func (p *Puller) pullFromSources(ctx context.Context, a attempt, lease *layer.Lease) (*Result, error) {
	sources, err := p.pullSources(a.name)
	if err != nil {
		return nil, err
	}
	var mirrorErrs []string
	for _, s := range sources {
		result, err := p.pullFromSource(ctx, a, s, lease)
		if err == nil {
			return result, nil
		}
		if s.last || ctx.Err() != nil || isDiskFull(err) {
			return nil, withMirrorErrors(err, mirrorErrs)
		}
		logrus.WithContext(ctx).WithFields(logrus.Fields{"image": a.name.String(), "source": s.ref.String()}).WithError(redact(err)).
			Warn("pull from mirror failed, trying the next source")
		mirrorErrs = append(mirrorErrs, fmt.Sprintf("%s: %v", s.ref, redact(err)))
	}
	return nil, fmt.Errorf("image %s has no pull source: %w", a.name, errdefs.ErrInternal)
}

// isDiskFull reports whether there is no space for the image. Another source would not help, in
// contrast to ErrResourceExhausted for a mirror that sends more than an image may have.
func isDiskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// withMirrorErrors appends the errors of the mirrors to the error of the registry itself, so
// that the error keeps its class and the beginning of its text.
func withMirrorErrors(err error, mirrorErrs []string) error {
	if len(mirrorErrs) == 0 {
		return err
	}
	return fmt.Errorf("%w (mirrors failed before: %s)", err, strings.Join(mirrorErrs, "; "))
}

// pullFromSource pulls from one source only.
func (p *Puller) pullFromSource(ctx context.Context, a attempt, s pullSource, lease *layer.Lease) (_ *Result, err error) {
	ctx, step := steps.Start(ctx, steps.ImageSource, steps.Source(s.ref.String()))
	defer func() { step.End(redact(err)) }()
	a.job.startSource(s.ref.String())
	// The next attempt unpacks the layers that this attempt has not finished.
	defer lease.ReleaseReservations()
	if !s.only {
		if registry, err := sysregistriesv2.FindRegistry(p.sys, s.endpoint.Location); err == nil && registry != nil && registry.Blocked {
			return nil, fmt.Errorf("registry %q of image %s is blocked in registries.conf: %w", registry.Prefix, s.ref, errdefs.ErrPermissionDenied)
		}
	}
	return p.copyImage(ctx, a, s, lease)
}
