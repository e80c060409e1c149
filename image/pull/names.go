package pull

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/shortnames"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
)

// Candidates returns the full names that ref can stand for, each with a tag or a digest, in the
// order in which Pull tries them. A name without a registry is resolved with the aliases and the
// search registries of registries.conf. If there are none, the registry is docker.io.
func (p *Puller) Candidates(ref string) ([]reference.Named, error) {
	if err := checkRef(ref); err != nil {
		return nil, err
	}
	resolved, err := p.resolve(ref)
	if err != nil {
		named, ok := p.dockerHubName(ref)
		if !ok {
			return nil, fmt.Errorf("resolve image name %q: %w: %w", ref, err, errdefs.ErrInvalidArgument)
		}
		return []reference.Named{Complete(named)}, nil
	}
	var names []reference.Named
	for _, c := range resolved.PullCandidates {
		names = append(names, Complete(c.Value))
	}
	return names, nil
}

// resolve resolves a name. It never asks the user, because a daemon that was started in a
// terminal would wait for the answer.
func (p *Puller) resolve(ref string) (*shortnames.Resolved, error) {
	mode, err := sysregistriesv2.GetShortNameMode(p.sys)
	if err != nil {
		return nil, err
	}
	sys, disabled := *p.sys, types.ShortNameModeDisabled
	sys.ShortNameMode = &disabled
	resolved, err := shortnames.Resolve(&sys, ref)
	if err == nil && mode == types.ShortNameModeEnforcing && len(resolved.PullCandidates) > 1 {
		return nil, errors.New("short name is ambiguous and short-name-mode is enforcing: use the full name")
	}
	return resolved, err
}

// LocalCandidates returns the full names that an image in the store can have if a request names
// the image ref.
func (p *Puller) LocalCandidates(ref string) []reference.Named {
	var names []reference.Named
	if len(ref) > maxRef {
		return nil
	}
	if shortnames.IsShortName(ref) {
		local, err := shortnames.ResolveLocally(p.sys, ref)
		if err == nil {
			names = local
		}
	}
	if named, err := reference.ParseNormalizedNamed(ref); err == nil {
		names = append(names, named)
	}
	for i, n := range names {
		names[i] = Complete(n)
	}
	return names
}

// maxRef is the maximum length of a reference in bytes. The rules of references allow 255 for
// registry and repository, 128 for the tag, and 135 for the digest.
const maxRef = 1024

// checkRef validates the image name of a request.
func checkRef(ref string) error {
	if ref == "" {
		return fmt.Errorf("image name is empty: %w", errdefs.ErrInvalidArgument)
	}
	if len(ref) > maxRef {
		return fmt.Errorf("image name %.64q… has %d bytes, at most %d are allowed: %w", ref, len(ref), maxRef, errdefs.ErrInvalidArgument)
	}
	if _, err := digest.Parse(ref); err == nil {
		return fmt.Errorf("image name %q is an image id, which cannot be pulled: %w", ref, errdefs.ErrInvalidArgument)
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return fmt.Errorf("parse image name %q: %w: %w", ref, err, errdefs.ErrInvalidArgument)
	}
	// containers/image verifies manifests with SHA-256 only.
	if d, ok := named.(reference.Digested); ok && d.Digest().Algorithm() != digest.Canonical {
		return fmt.Errorf("image name %q has a digest with algorithm %q, want %s: %w", ref, d.Digest().Algorithm(), digest.Canonical, errdefs.ErrNotImplemented)
	}
	return nil
}

// dockerHubName returns the full name of a short name in docker.io. ok is false if the name is
// not short or if registries.conf has search registries.
func (p *Puller) dockerHubName(ref string) (named reference.Named, ok bool) {
	registries, err := sysregistriesv2.UnqualifiedSearchRegistries(p.sys)
	if err != nil || len(registries) > 0 || !shortnames.IsShortName(ref) {
		return nil, false
	}
	named, err = reference.ParseNormalizedNamed(ref)
	return named, err == nil
}

// Complete adds the tag "latest" to a name without tag and digest. It removes the tag of a name
// with a digest, because the digest is more specific.
func Complete(named reference.Named) reference.Named {
	digested, ok := named.(reference.Digested)
	if !ok {
		return reference.TagNameOnly(named)
	}
	canonical, err := reference.WithDigest(reference.TrimNamed(named), digested.Digest())
	if err != nil {
		return named
	}
	return canonical
}

// systemContext returns the settings of containers/image that all pulls share.
func systemContext(cfg Config) *types.SystemContext {
	return &types.SystemContext{
		SystemRegistriesConfPath:    cfg.RegistriesConf,
		SystemRegistriesConfDirPath: cfg.RegistriesConfDir,
		RegistriesDirPath:           cfg.RegistriesD,
		UserShortNameAliasConfPath:  strings.TrimSuffix(cfg.RunDir, "/") + "/short-name-aliases.conf",
		AuthFilePath:                cfg.AuthFile,
		BigFilesTemporaryDir:        cfg.TempDir,
		DockerRegistryUserAgent:     "criserver",
		// The cache of blob locations is for copies between registries. It stays in memory,
		// because the directory cannot be created.
		BlobInfoCacheDir: "/dev/null/none",
	}
}
