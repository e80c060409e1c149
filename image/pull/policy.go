package pull

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage/pkg/configfile"
)

// policy reads the signature policy anew for each pull: that of the pod's
// namespace where there is one, else the general one.
func (p *Puller) policy(namespace string) (*signature.Policy, error) {
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

// maxNamespace bounds a namespace's name in bytes; a DNS label has 63.
const maxNamespace = 200

// policyPath returns the policy file for a namespace. A name that is no single
// path element is refused: the kubelet's are DNS labels.
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
	// What cannot be looked at may be stricter than the general policy.
	return "", fmt.Errorf("read signature policy of namespace %q: %w: %w", namespace, err, errdefs.ErrFailedPrecondition)
}
