package pull

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"go.podman.io/image/v5/types"
)

// Auth is the credential of one pull. See the CRI's AuthConfig.
type Auth struct {
	Username, Password string
	Encoded            string // base64 of "user:password"
	ServerAddress      string // a host, or a URL as docker's config has it
	IdentityToken      string
	RegistryToken      string
}

// applyTo puts the credential into sys, if it is meant for the registry host.
// Where it is not, nothing is sent but what the auth files have for that host.
func (a *Auth) applyTo(sys *types.SystemContext, host string) error {
	if a == nil || !a.isFor(host) {
		return nil
	}
	user, password := a.Username, a.Password
	if user == "" && password == "" && a.Encoded != "" {
		var err error
		if user, password, err = decode(a.Encoded); err != nil {
			return err
		}
	}
	if user == "" && password == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return nil
	}
	// Set even when there is only a token: containers/image looks at this one
	// alone when it keeps credentials of the registry from its mirrors.
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

func canonicalHost(host string) string {
	switch host = strings.ToLower(host); host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}

// decode splits an encoded credential. Some writers pad it with zero bytes.
func decode(encoded string) (user, password string, err error) {
	b, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		// Not the decoder's error: it could quote from the secret.
		return "", "", fmt.Errorf("auth is not base64: %w", errdefs.ErrInvalidArgument)
	}
	user, password, ok := strings.Cut(string(b), ":")
	if !ok {
		return "", "", fmt.Errorf("auth has no colon: %w", errdefs.ErrInvalidArgument)
	}
	return user, strings.TrimRight(password, "\x00"), nil
}
