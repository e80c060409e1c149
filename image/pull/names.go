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

// Candidates returns the full names that ref can stand for, in the order in
// which they are to be tried, each with a tag or a digest. A name without a
// registry goes by the aliases and search registries of registries.conf, and
// means docker.io where there are neither.
func (p *Puller) Candidates(ref string) ([]reference.Named, error) {
	if err := checkRef(ref); err != nil {
		return nil, err
	}
	resolved, err := p.resolve(ref)
	if err != nil {
		named, hub := p.onlyHub(ref)
		if !hub {
			return nil, fmt.Errorf("resolve image name %q: %w: %w", ref, err, errdefs.ErrInvalidArgument)
		}
		return []reference.Named{complete(named)}, nil
	}
	var names []reference.Named
	for _, c := range resolved.PullCandidates {
		names = append(names, complete(c.Value))
	}
	return names, nil
}

// resolve finds what a name stands for, and never asks at a terminal: a daemon
// that was started in one would hang there.
func (p *Puller) resolve(ref string) (*shortnames.Resolved, error) {
	mode, err := sysregistriesv2.GetShortNameMode(p.sys)
	if err != nil {
		return nil, err
	}
	quiet, disabled := *p.sys, types.ShortNameModeDisabled
	quiet.ShortNameMode = &disabled
	resolved, err := shortnames.Resolve(&quiet, ref)
	if err == nil && mode == types.ShortNameModeEnforcing && len(resolved.PullCandidates) > 1 {
		return nil, errors.New("it can stand for images in several registries, and short-name-mode is enforcing: write it in full")
	}
	return resolved, err
}

// Locals returns the full names that an image in the store could have been
// pulled by when it is asked for as ref.
func (p *Puller) Locals(ref string) []reference.Named {
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
		names[i] = complete(n)
	}
	return names
}

// maxRef bounds a reference, in bytes: 255 are the registry and the repository's
// by the rules of references, 128 a tag's, and a digest can be of 135.
const maxRef = 1024

func checkRef(ref string) error {
	if ref == "" {
		return fmt.Errorf("image name is empty: %w", errdefs.ErrInvalidArgument)
	}
	if len(ref) > maxRef {
		return fmt.Errorf("image name %.64q… must have at most %d bytes, has %d: %w", ref, maxRef, len(ref), errdefs.ErrInvalidArgument)
	}
	if _, err := digest.Parse(ref); err == nil {
		return fmt.Errorf("image name %q is an id, which no registry knows: %w", ref, errdefs.ErrInvalidArgument)
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return fmt.Errorf("image name %q: %w: %w", ref, err, errdefs.ErrInvalidArgument)
	}
	// containers/image compares manifests by SHA-256 only.
	if d, ok := named.(reference.Digested); ok && d.Digest().Algorithm() != digest.Canonical {
		return fmt.Errorf("image name %q has a digest by %q, which must be by %s: %w", ref, d.Digest().Algorithm(), digest.Canonical, errdefs.ErrNotImplemented)
	}
	return nil
}

// onlyHub says whether a short name has nowhere to go but docker.io.
func (p *Puller) onlyHub(ref string) (reference.Named, bool) {
	registries, err := sysregistriesv2.UnqualifiedSearchRegistries(p.sys)
	if err != nil || len(registries) > 0 || !shortnames.IsShortName(ref) {
		return nil, false
	}
	named, err := reference.ParseNormalizedNamed(ref)
	return named, err == nil
}

// complete adds the tag "latest" to a bare name, and drops the tag of one that
// has a digest, which says more.
func complete(named reference.Named) reference.Named {
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

// credentialHost is the host that a credential without a server address is
// meant for: the one in the name, docker.io when there is none. A search
// through several registries must not show it to all of them.
func credentialHost(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	return reference.Domain(named)
}

// systemContext is what all pulls have in common.
func systemContext(cfg Config) *types.SystemContext {
	return &types.SystemContext{
		SystemRegistriesConfPath:    cfg.RegistriesConf,
		SystemRegistriesConfDirPath: cfg.RegistriesConfDir,
		RegistriesDirPath:           cfg.RegistriesD,
		UserShortNameAliasConfPath:  strings.TrimSuffix(cfg.RunDir, "/") + "/short-name-aliases.conf",
		AuthFilePath:                cfg.AuthFile,
		BigFilesTemporaryDir:        cfg.TempDir,
		DockerRegistryUserAgent:     "criserver",
		// The cache of blob locations is for copies between registries. Below
		// a path that cannot be made it stays in memory.
		BlobInfoCacheDir: "/dev/null/none",
	}
}
