package pull

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/types"

	"github.com/criserver/criserver/image/registry"
)

// Auth is the credential of one pull. It has the fields of the CRI's AuthConfig.
type Auth struct {
	Username, Password string
	Encoded            string // base64 of "user:password"
	ServerAddress      string // a host, or a URL as in docker's configuration
	IdentityToken      string
	RegistryToken      string
}

// authFor returns the credential of a request if it may be sent to the registry of name, which
// is one of the candidates for ref. Otherwise it returns nil.
func (p *Puller) authFor(name reference.Named, ref string, auth *Auth) *Auth {
	if auth == nil || auth.ServerAddress != "" || reference.Domain(name) == credentialHost(ref) {
		return auth
	}
	return nil
}

// credentialHost returns the host that a credential without a server address is for: the host
// in the image name, or docker.io if the name has none. The search for a short name in several
// registries must not send the credential to all of them.
func credentialHost(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	return reference.Domain(named)
}

// applyTo stores the credential in sys if the credential is for the registry host. If it is for
// another host, only the credentials in the auth files are sent.
func (a *Auth) applyTo(sys *types.SystemContext, host string) error {
	if a == nil || !a.isFor(host) {
		return nil
	}
	user, password := a.Username, a.Password
	if user == "" && password == "" && a.Encoded != "" {
		var err error
		if user, password, err = decodeAuth(a.Encoded); err != nil {
			return err
		}
	}
	if user == "" && password == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return nil
	}
	// DockerAuthConfig is set even if there is only a token, because containers/image checks
	// only this field when it keeps the credentials of a registry from the mirrors.
	sys.DockerAuthConfig = &types.DockerAuthConfig{
		Username: user, Password: password, IdentityToken: a.IdentityToken,
	}
	sys.DockerBearerRegistryToken = a.RegistryToken
	return nil
}

func (a *Auth) isFor(host string) bool {
	if a.ServerAddress == "" {
		return true
	}
	server := a.ServerAddress
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	server, _, _ = strings.Cut(server, "/")
	return canonicalHost(server) == canonicalHost(host)
}

// canonicalHost returns a host in lower case, and docker.io for the other names of Docker Hub.
func canonicalHost(host string) string {
	switch host = strings.ToLower(host); host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}

// decodeAuth decodes user and password. Some clients pad the password with zero bytes.
func decodeAuth(encoded string) (user, password string, err error) {
	b, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		// The decoder's error is left out, because it could quote the secret.
		return "", "", fmt.Errorf("decode auth: not base64: %w", errdefs.ErrInvalidArgument)
	}
	user, password, ok := strings.Cut(string(b), ":")
	if !ok {
		return "", "", fmt.Errorf("decode auth: no colon between user and password: %w", errdefs.ErrInvalidArgument)
	}
	return user, strings.TrimRight(password, "\x00"), nil
}

// registryAuth returns the credential for a pull source. The credential of the request is only
// for the host in the image name. The credentials for other hosts are in the auth files.
func (a attempt) registryAuth(source reference.Named) (registry.Auth, error) {
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
