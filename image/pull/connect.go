package pull

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/storage/pkg/configfile"

	"github.com/criserver/criserver/image/registry"
)

const (
	// attempts bounds how often a request is sent, with pauses of 1, 2 and 4 s.
	attempts = 4
	// mirrorAttempts is the bound where another source is left to be tried.
	mirrorAttempts = 2
)

// connect returns a client for one source.
func (p *Puller) connect(a attempt, s source, keepAlive func()) (*registry.Client, error) {
	auth, err := a.auth(s.ref)
	if err != nil {
		return nil, err
	}
	certs, err := certDir(reference.Domain(s.ref))
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	n := attempts
	if !s.last {
		n = mirrorAttempts
	}
	return registry.New(registry.Config{
		Host: hostOf(s.ref), Repository: reference.Path(s.ref), ProxiedRegistry: s.endpoint.NamespaceProxy,
		Insecure: s.endpoint.Insecure, CertDir: certs, Auth: auth, UserAgent: p.sys.DockerRegistryUserAgent,
		Attempts: n, KeepAlive: keepAlive,
	})
}

// auth returns the credential for a source. That of the request is for the host in
// the image's name; for others there are the auth files.
func (a attempt) auth(source reference.Named) (registry.Auth, error) {
	sys := *a.sys
	if reference.Domain(source) != reference.Domain(a.name) {
		sys.DockerAuthConfig, sys.DockerBearerRegistryToken = nil, ""
	}
	found, err := config.GetCredentialsForRef(&sys, source)
	if err != nil {
		return registry.Auth{}, fmt.Errorf("read credentials for %s: %w: %w", reference.Domain(source), err, errdefs.ErrFailedPrecondition)
	}
	return registry.Auth{
		Username: found.Username, Password: found.Password,
		IdentityToken: found.IdentityToken, BearerToken: sys.DockerBearerRegistryToken,
	}, nil
}

// hostOf returns the host that serves the registry of a name. The host of Docker Hub is
// not the one in the names of its images.
func hostOf(name reference.Named) string {
	host := reference.Domain(name)
	if host == "docker.io" {
		return "registry-1." + host
	}
	return host
}

// certDir returns the directory with the certificates for a host, or "". The
// directories are those that other tools use.
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
