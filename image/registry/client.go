// Package registry reads manifests and blobs of one repository of a registry with the OCI
// distribution protocol. It owns authentication, redirects, the repetition of requests and the
// resumption of blobs. It must not verify digests, and must not deal with images, mirrors or
// policies, which belong to its caller.
package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"sync"

	"github.com/containerd/errdefs"
	"go.podman.io/image/v5/pkg/tlsclientconfig"
)

// Config is the input of a Client.
type Config struct {
	Host       string // with a port, unless the port is the default of the scheme
	Repository string
	// ProxiedRegistry is the registry that the proxy at Host reads from, or "". It is sent as
	// the query parameter "ns".
	ProxiedRegistry string
	// Insecure allows certificates that cannot be verified, and plain HTTP.
	Insecure bool
	// CertDir is the directory with the certificates for Host, or "".
	CertDir   string
	Auth      Auth
	UserAgent string
	// Attempts is the maximum number of times that a request is sent.
	Attempts int
	// KeepAlive is called while a request waits for its next attempt, and while bytes are
	// skipped, so that the caller does not consider the pull stalled.
	KeepAlive func()
}

// Auth is a credential. If BearerToken is set, it is sent to the registry unchanged. Otherwise
// IdentityToken takes precedence over user and password.
type Auth struct {
	Username, Password string
	IdentityToken      string // a refresh token, for the token server
	BearerToken        string // for the registry
}

// Client reads from one repository. Its methods can be called concurrently.
type Client struct {
	cfg  Config
	http *http.Client
	// negotiation has the capacity one. It is full while a goroutine detects the scheme or
	// requests a token, so that the other goroutines wait for the result. mu is not held
	// during the request, and is taken after negotiation.
	negotiation chan struct{}

	mu        sync.Mutex // guards the fields below
	scheme    string     // of URLs; "" before the first request
	challenge *challenge // of the registry; nil: requests are sent without a credential
	token     token
}

const (
	// maxManifest is the maximum size of a manifest in bytes, as the protocol recommends.
	maxManifest  = 4 << 20
	maxRedirects = 10
)

// New returns a client. It sends no request.
func New(cfg Config) (*Client, error) {
	transport := tlsclientconfig.NewTransport()
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: cfg.Insecure} //nolint:gosec // the administrator has configured it
	// Layers are fetched in parallel.
	transport.MaxIdleConnsPerHost = 8
	if cfg.CertDir != "" {
		if err := tlsclientconfig.SetupCertificates(cfg.CertDir, transport.TLSClientConfig); err != nil {
			return nil, fmt.Errorf("read certificates of %s: %w: %w", cfg.Host, err, errdefs.ErrFailedPrecondition)
		}
	}
	return &Client{
		cfg: cfg, negotiation: make(chan struct{}, 1),
		http: &http.Client{Transport: transport, CheckRedirect: checkRedirect},
	}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// checkRedirect removes the Authorization header from requests to another origin. net/http
// keeps the header for subdomains and other ports, because net/http compares host names only.
// checkRedirect refuses to send the body of a POST to another origin, because the body is a
// refresh token.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects: %w", maxRedirects, errdefs.ErrUnavailable)
	}
	if first := via[0].URL; req.URL.Scheme != first.Scheme || req.URL.Host != first.Host {
		req.Header.Del("Authorization")
		if req.Method == http.MethodPost {
			return fmt.Errorf("%s redirects a request with a refresh token to %s: %w", first.Host, req.URL.Host, errdefs.ErrPermissionDenied)
		}
	}
	return nil
}

// Manifest returns a manifest by its tag or digest, and the media type in the response.
// accept lists the media types to ask for.
func (c *Client) Manifest(ctx context.Context, ref string, accept []string) (body []byte, mediaType string, err error) {
	err = c.retry(ctx, func() error {
		res, err := c.get(ctx, "manifests/"+ref, http.Header{"Accept": accept})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return newStatusError(res)
		}
		mediaType, _, _ = mime.ParseMediaType(res.Header.Get("Content-Type")) // "" if it is none
		body, err = io.ReadAll(io.LimitReader(res.Body, maxManifest+1))
		return err
	})
	if err == nil && len(body) > maxManifest {
		err = fmt.Errorf("manifest is larger than %d bytes: %w", maxManifest, errdefs.ErrResourceExhausted)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read manifest %s of %s/%s: %w", ref, c.cfg.Host, c.cfg.Repository, err)
	}
	return body, mediaType, nil
}

// get sends a request for a path of the repository, with the credential. If the registry
// answers 401, get sends the request a second time with a new token.
func (c *Client) get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	if err := c.detectScheme(ctx); err != nil {
		return nil, err
	}
	for retried := false; ; retried = true {
		req, err := c.request(ctx, "/v2/"+c.cfg.Repository+"/"+path)
		if err != nil {
			return nil, err
		}
		for name, values := range header {
			req.Header[name] = values
		}
		sent, err := c.authorize(req)
		if err != nil {
			return nil, err
		}
		res, err := c.http.Do(req)
		if err != nil || res.StatusCode != http.StatusUnauthorized || retried || !c.renewToken(res, sent) {
			return res, err
		}
		// The token has expired, or is not for this repository.
		drain(res)
	}
}

func (c *Client) request(ctx context.Context, path string) (*http.Request, error) {
	c.mu.Lock()
	u := url.URL{Scheme: c.scheme, Host: c.cfg.Host, Path: path}
	c.mu.Unlock()
	return c.newRequest(ctx, u)
}

func (c *Client) newRequest(ctx context.Context, u url.URL) (*http.Request, error) {
	if c.cfg.ProxiedRegistry != "" {
		u.RawQuery = url.Values{"ns": {c.cfg.ProxiedRegistry}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("create request to %s: %w: %w", c.cfg.Host, err, errdefs.ErrInvalidArgument)
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Docker-Distribution-Api-Version", "registry/2.0")
	return req, nil
}

// detectScheme detects the scheme of the registry's URLs and its challenge. It does so for the
// first request only. It requests the root of the API, because some registries send a challenge
// for no other path.
func (c *Client) detectScheme(ctx context.Context) error {
	unlock, err := c.lockNegotiation(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	c.mu.Lock()
	detected := c.scheme != ""
	c.mu.Unlock()
	if detected {
		return nil
	}
	res, scheme, err := c.ping(ctx)
	if err != nil {
		return fmt.Errorf("ping registry %s: %w", c.cfg.Host, err)
	}
	defer drain(res)
	if isTemporaryStatus(res.StatusCode) {
		return fmt.Errorf("ping registry %s: %w", c.cfg.Host, newStatusError(res))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scheme = scheme
	if res.StatusCode == http.StatusUnauthorized {
		if c.challenge = chooseChallenge(res.Header.Values("WWW-Authenticate")); c.challenge != nil {
			delete(c.challenge.params, "scope") // is for the root and not for the repository
		}
	}
	return nil
}

// ping requests the root of the API with HTTPS. If the registry is insecure and HTTPS fails,
// ping uses HTTP.
func (c *Client) ping(ctx context.Context) (res *http.Response, scheme string, err error) {
	schemes := []string{"https"}
	if c.cfg.Insecure {
		schemes = append(schemes, "http")
	}
	for _, scheme = range schemes {
		req, reqErr := c.newRequest(ctx, url.URL{Scheme: scheme, Host: c.cfg.Host, Path: "/v2/"})
		if reqErr != nil {
			return nil, "", reqErr
		}
		if res, err = c.http.Do(req); err == nil {
			return res, scheme, nil
		}
	}
	return nil, "", err
}

// lockNegotiation waits until no other goroutine detects the scheme or requests a token.
func (c *Client) lockNegotiation(ctx context.Context) (unlock func(), err error) {
	select {
	case c.negotiation <- struct{}{}:
		return func() { <-c.negotiation }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// drain reads and closes the body of a response, so that the connection can be used again.
// If the body is longer than 64 KiB, the connection is closed.
func drain(res *http.Response) {
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	_ = res.Body.Close()
}
