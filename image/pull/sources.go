package pull

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"

	"github.com/criserver/criserver/image/layer"
)

// source is one place where an image may be had: a mirror, or its registry.
type source struct {
	name     string          // what is really asked for, "host/path:tag"
	ref      reference.Named // likewise
	endpoint sysregistriesv2.Endpoint
	only     bool // there is no other, so the configuration can stay as it is
	last     bool
}

// sources returns where name can be fetched from, the registry itself last. By
// the rules of registries.conf some mirrors may be for tags or digests only.
func (p *Puller) sources(name reference.Named) ([]source, error) {
	registry, err := sysregistriesv2.FindRegistry(p.sys, name.Name())
	switch {
	case err != nil:
		return nil, fmt.Errorf("read registries.conf: %w: %w", err, errdefs.ErrFailedPrecondition)
	case registry == nil:
		return []source{{name: name.String(), ref: name, only: true, last: true}}, nil
	case registry.Blocked:
		return nil, fmt.Errorf("registry %q of image %s is blocked in registries.conf: %w", registry.Prefix, name, errdefs.ErrPermissionDenied)
	}
	found, err := registry.PullSourcesFromReference(name)
	if err != nil {
		return nil, fmt.Errorf("registry %q of registries.conf: %w: %w", registry.Prefix, err, errdefs.ErrFailedPrecondition)
	}
	sources := make([]source, 0, len(found))
	for i, f := range found {
		f.Endpoint.Location = reference.TrimNamed(f.Reference).String()
		f.Endpoint.PullFromMirror = ""
		sources = append(sources, source{f.Reference.String(), f.Reference, f.Endpoint, len(found) == 1, i == len(found)-1})
	}
	return sources, nil
}

// fromSources tries one source after the other. containers/image would do the
// same by itself, but only until a manifest has come: a mirror that stalls, or
// that lacks or garbles a layer, would fail the pull for good. What one source
// has brought is not fetched from the next.
func (p *Puller) fromSources(ctx context.Context, a attempt, lease *layer.Lease) (*Result, error) {
	sources, err := p.sources(a.name)
	if err != nil {
		return nil, err
	}
	var before []string
	for _, s := range sources {
		result, err := p.fromSource(ctx, a, s, lease)
		if err == nil {
			return result, nil
		}
		if s.last || ctx.Err() != nil || errdefs.IsResourceExhausted(err) {
			return nil, withMirrors(err, before)
		}
		logrus.WithContext(ctx).WithFields(logrus.Fields{"image": a.name.String(), "source": s.name}).WithError(scrub(err)).
			Warn("a mirror failed: the next source is tried")
		before = append(before, fmt.Sprintf("%s: %v", s.name, scrub(err)))
	}
	return nil, fmt.Errorf("no source for %s: %w", a.name, errdefs.ErrInternal)
}

// withMirrors adds why the mirrors did not help. The class is that of the
// registry itself, and so is the beginning of the text.
func withMirrors(err error, before []string) error {
	if len(before) == 0 {
		return err
	}
	return fmt.Errorf("%w (mirrors failed before: %s)", err, strings.Join(before, "; "))
}

// fromSource pulls from one source only.
func (p *Puller) fromSource(ctx context.Context, a attempt, s source, lease *layer.Lease) (*Result, error) {
	a.job.from(s.name)
	// A layer that this attempt leaves unfinished is for the next one to bring.
	defer lease.Disclaim()
	if !s.only {
		if registry, err := sysregistriesv2.FindRegistry(p.sys, s.endpoint.Location); err == nil && registry != nil && registry.Blocked {
			return nil, fmt.Errorf("registry %q of %s is blocked in registries.conf: %w", registry.Prefix, s.name, errdefs.ErrPermissionDenied)
		}
	}
	return p.copyImage(ctx, a, s, lease)
}

// narrow makes sys see a registries.conf in which name has this source and no
// other. Credentials keep to their rules by it: those of the request are for
// the host in name, whatever the source, and those of the auth files for the
// host that is asked.
func (p *Puller) narrow(sys *types.SystemContext, name reference.Named, s source) (dir string, err error) {
	helpers, err := sysregistriesv2.CredentialHelpers(p.sys)
	if err != nil {
		return "", fmt.Errorf("read registries.conf: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	conf := sysregistriesv2.V2RegistriesConf{
		CredentialHelpers: helpers,
		Registries:        []sysregistriesv2.Registry{{Prefix: name.Name(), Endpoint: s.endpoint}},
	}
	if dir, err = os.MkdirTemp(p.cfg.RunDir, "registries-"); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "registries.conf")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(toml.NewEncoder(f).Encode(conf), f.Close())
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	sys.SystemRegistriesConfPath, sys.SystemRegistriesConfDirPath = path, filepath.Join(dir, "none")
	return dir, nil
}
