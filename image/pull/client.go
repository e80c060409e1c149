package pull

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/storage/pkg/configfile"

	"github.com/criserver/criserver/image/registry"
)

const (
	// maxAttempts is the number of times that a request is sent, with pauses of 1, 2 and 4 s.
	maxAttempts = 4
	// maxMirrorAttempts is that number if there is another source to try.
	maxMirrorAttempts = 2
)

// newClient returns a registry client for one pull source.
func (p *Puller) newClient(a attempt, s pullSource, keepAlive func()) (*registry.Client, error) {
	auth, err := a.registryAuth(s.ref)
	if err != nil {
		return nil, err
	}
	certs, err := certDir(reference.Domain(s.ref))
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	attempts := maxAttempts
	if !s.last {
		attempts = maxMirrorAttempts
	}
	return registry.New(registry.Config{
		Host: registryHost(s.ref), Repository: reference.Path(s.ref), ProxiedRegistry: s.endpoint.NamespaceProxy,
		Insecure: s.endpoint.Insecure, CertDir: certs, Auth: auth, UserAgent: p.sys.DockerRegistryUserAgent,
		Attempts: attempts, KeepAlive: keepAlive,
	})
}

// registryHost returns the host that serves the registry of a name. The host of Docker Hub
// differs from the host in the names of its images.
func registryHost(name reference.Named) string {
	host := reference.Domain(name)
	if host == "docker.io" {
		return "registry-1." + host
	}
	return host
}

// certDir returns the directory with the certificates for a host, or "". It searches the
// directories that containers/image and docker search.
func certDir(host string) (string, error) {
	paths, err := configfile.GetSearchPaths(&configfile.File{
		Name: "certs", Extension: "d", DoNotUseExtensionForConfigName: true, UserId: os.Geteuid(),
	})
	if err != nil {
		return "", err
	}
	for _, dir := range append(paths.DropInDirectories, "/etc/docker/certs.d") {
		path := filepath.Join(dir, host)
		switch _, err := os.Stat(path); {
		case err == nil:
			return path, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	return "", nil
}
