package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/containerd/errdefs"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage/pkg/configfile"
)

// loadPolicy reads the signature policy of the pod's namespace, or the general policy if the
// namespace has none. It is called for each pull, so that changes take effect at once.
func (p *Puller) loadPolicy(namespace string) (*signature.Policy, error) {
	path, err := p.policyPath(namespace)
	if err != nil {
		return nil, err
	}
	policy, err := signature.DefaultPolicy(&types.SystemContext{SignaturePolicyPath: path})
	if errors.Is(err, configfile.ErrConfigFileNotFound) && path == "" {
		return acceptAnything(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read signature policy: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return policy, nil
}

// acceptAnything returns a policy that accepts all images.
func acceptAnything() *signature.Policy {
	return &signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}}
}

// maxNamespace is the maximum length of a namespace in bytes. A DNS label has at most 63.
const maxNamespace = 200

// policyPath returns the path of the policy for a namespace. It refuses a namespace that is not
// a single path element. The namespaces of Kubernetes are DNS labels.
func (p *Puller) policyPath(namespace string) (string, error) {
	if p.cfg.PolicyDir == "" || namespace == "" {
		return p.cfg.PolicyPath, nil
	}
	if strings.HasPrefix(namespace, ".") || strings.ContainsAny(namespace, "/\x00") || len(namespace) > maxNamespace {
		return "", fmt.Errorf("sandbox_config.metadata.namespace %.64q must be a DNS label: %w", namespace, errdefs.ErrInvalidArgument)
	}
	path := filepath.Join(p.cfg.PolicyDir, namespace+".json")
	_, err := os.Lstat(path)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, fs.ErrNotExist):
		return p.cfg.PolicyPath, nil
	}
	// A policy that cannot be read may be stricter than the general policy.
	return "", fmt.Errorf("read signature policy of namespace %q: %w: %w", namespace, err, errdefs.ErrFailedPrecondition)
}

// verify evaluates a policy that demands signatures. It uses the image source of
// containers/image, because only that source reads signatures of all kinds. The manifest that
// this source returns must equal the manifest that src has read, which is copied afterwards.
func (p *Puller) verify(ctx context.Context, a attempt, s pullSource, policy *signature.PolicyContext, src *imageSource) (err error) {
	sys := *a.sys
	if !s.only {
		dir, err := p.narrowRegistries(&sys, a.name, s)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	signed, err := a.openDockerSource(ctx, &sys)
	if err != nil {
		return classify(err)
	}
	defer signed.Close()
	b, mediaType, err := signed.GetManifest(ctx, nil)
	if err != nil {
		return classify(err)
	}
	if !bytes.Equal(b, src.topManifest) {
		return fmt.Errorf("%w: manifest of image %s changed during verification: %w", ErrRegistryUnavailable, a.name, errdefs.ErrUnavailable)
	}
	instance, err := a.checkManifest(b, manifest.NormalizedMIMEType(mediaType))
	if err != nil {
		return err
	}
	if _, err := policy.IsRunningImageAllowed(ctx, image.UnparsedInstance(signed, instance)); err != nil {
		return classifyPolicyError(ctx, err)
	}
	return nil
}

// narrowRegistries sets a registries.conf in sys in which name has only the source s. The rules
// for credentials stay in force: credentials of the request are for the host in name, for all
// sources, and credentials in the auth files are for the host of the source. The caller removes
// the returned directory.
func (p *Puller) narrowRegistries(sys *types.SystemContext, name reference.Named, s pullSource) (dir string, err error) {
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

// openDockerSource opens the image source of containers/image. It repeats failed attempts,
// because containers/image does not.
func (a attempt) openDockerSource(ctx context.Context, sys *types.SystemContext) (types.ImageSource, error) {
	ref, err := docker.NewReference(a.name)
	if err != nil {
		return nil, err
	}
	for i := 1; ; i++ {
		src, err := ref.NewImageSource(ctx, sys)
		if err == nil || i == maxAttempts || ctx.Err() != nil || !errdefs.IsUnavailable(classify(err)) {
			return src, err
		}
	}
}

// classifyPolicyError adds a class to the error of a policy. If a signature is malformed or
// cannot be read, the policy has not accepted the image, so the validation has failed.
func classifyPolicyError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if classified := classify(err); !errdefs.IsUnknown(classified) {
		return classified
	}
	return fmt.Errorf("%w: %w: %w", ErrSignatureValidationFailed, err, errdefs.ErrPermissionDenied)
}
