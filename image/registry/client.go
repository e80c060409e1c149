// Package registry reads manifests and blobs of one repository of a registry, by the OCI
// distribution protocol. It owns authentication, redirects, repeated requests and the
// resumption of bodies. It must not deal with digests, images, mirrors or policies, which
// belong to its caller.
package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/pkg/tlsclientconfig"
)

// Config is what a Client needs.
type Config struct {
	Host       string // with a port if it is not the usual one
	Repository string
	// Proxied is the registry that the proxy at Host reads from, or "".
	Proxied string
	// Insecure allows certificates that cannot be verified, and plain HTTP.
	Insecure bool
	// CertDir has certificates for Host, or is "".
	CertDir   string
	Auth      Auth
	UserAgent string
	// Attempts is the maximum number of times that a request is sent.
	Attempts int
	// Moved is called while a request waits for its next attempt, and while bytes are
	// skipped, so that the caller does not take the pull for stalled.
	Moved func()
}

// Auth is a credential. Token is sent unchanged. Otherwise IdentityToken takes precedence
// over user and password.
type Auth struct {
	Username, Password string
	IdentityToken      string // a refresh token
	Token              string // for the registry itself
}

// Client reads from one repository. Its methods can be called concurrently.
type Client struct {
	cfg  Config
	http *http.Client
	turn chan struct{} // capacity one: full while somebody finds out the scheme or gets a token

	mu sync.Mutex // guards what follows
	// scheme is "" before the first request.
	scheme    string
	challenge *challenge // how to authenticate; nil: not at all
	token     token
}

const (
	// maxManifest bounds a manifest in bytes, as the protocol recommends.
	maxManifest = 4 << 20
	maxRedirect = 10
)

// New returns a client. It sends no request.
func New(cfg Config) (*Client, error) {
	transport := tlsclientconfig.NewTransport()
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: cfg.Insecure} //nolint:gosec // the administrator says so
	// Layers are fetched side by side.
	transport.MaxIdleConnsPerHost = 8
	if cfg.CertDir != "" {
		if err := tlsclientconfig.SetupCertificates(cfg.CertDir, transport.TLSClientConfig); err != nil {
			return nil, fmt.Errorf("read certificates of %s: %w: %w", cfg.Host, err, errdefs.ErrFailedPrecondition)
		}
	}
	return &Client{
		cfg: cfg, turn: make(chan struct{}, 1),
		http: &http.Client{Transport: transport, CheckRedirect: checkRedirect},
	}, nil
}

// Close gives up connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// checkRedirect removes the credential from requests to another origin. net/http keeps the
// credential for subdomains and other ports, because it compares host names only.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirect {
		return fmt.Errorf("more than %d redirects: %w", maxRedirect, errdefs.ErrUnavailable)
	}
	if first := via[0].URL; req.URL.Scheme != first.Scheme || req.URL.Host != first.Host {
		req.Header.Del("Authorization")
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
		err = fmt.Errorf("it is larger than %d bytes: %w", maxManifest, errdefs.ErrResourceExhausted)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read manifest %s of %s/%s: %w", ref, c.cfg.Host, c.cfg.Repository, err)
	}
	return body, mediaType, nil
}

// Blob returns a blob and its size, or -1 if the size is unknown. want is the size in the
// manifest, or -1. If the connection breaks, the reader continues with another connection.
func (c *Client) Blob(ctx context.Context, d digest.Digest, want int64) (io.ReadCloser, int64, error) {
	b := &blob{ctx: ctx, client: c, digest: d, size: want}
	if err := c.retry(ctx, func() error { return b.open() }); err != nil {
		return nil, 0, b.failed(err)
	}
	return b, b.size, nil
}

// get sends a request for a path of the repository, with the credential.
func (c *Client) get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	if err := c.detect(ctx); err != nil {
		return nil, err
	}
	for again := false; ; again = true {
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
		if err != nil || res.StatusCode != http.StatusUnauthorized || again || !c.refused(res, sent) {
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
	if c.cfg.Proxied != "" {
		u.RawQuery = url.Values{"ns": {c.cfg.Proxied}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("request to %s: %w: %w", c.cfg.Host, err, errdefs.ErrInvalidArgument)
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Docker-Distribution-Api-Version", "registry/2.0")
	return req, nil
}

// detect finds out the scheme of the registry and the kind of its credentials, once. It
// requests the root of the API, because some registries send a challenge nowhere else.
func (c *Client) detect(ctx context.Context) error {
	done, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer done()
	c.mu.Lock()
	known := c.scheme != ""
	c.mu.Unlock()
	if known {
		return nil
	}
	res, scheme, err := c.ping(ctx)
	if err != nil {
		return fmt.Errorf("ping registry %s: %w", c.cfg.Host, err)
	}
	drain(res)
	if retryable(res.StatusCode) {
		return fmt.Errorf("ping registry %s: %w", c.cfg.Host, newStatusError(res))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scheme = scheme
	if res.StatusCode == http.StatusUnauthorized {
		if c.challenge = choose(res.Header.Values("WWW-Authenticate")); c.challenge != nil {
			delete(c.challenge.params, "scope") // of the root, if there is one
		}
	}
	return nil
}

func (c *Client) ping(ctx context.Context) (res *http.Response, scheme string, err error) {
	schemes := []string{"https"}
	if c.cfg.Insecure {
		schemes = append(schemes, "http")
	}
	for _, scheme = range schemes {
		req, rerr := c.newRequest(ctx, url.URL{Scheme: scheme, Host: c.cfg.Host, Path: "/v2/"})
		if rerr != nil {
			return nil, "", rerr
		}
		if res, err = c.http.Do(req); err == nil {
			return res, scheme, nil
		}
	}
	return nil, "", err
}

// lock waits until no other goroutine detects the scheme or requests a token.
func (c *Client) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case c.turn <- struct{}{}:
		return func() { <-c.turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// drain ends a response so that its connection can be used again.
func drain(res *http.Response) {
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10) // what is longer costs a connection
	_ = res.Body.Close()
}

// isJSON reports whether the media type of a response is JSON.
func isJSON(res *http.Response) bool {
	return strings.Contains(res.Header.Get("Content-Type"), "json")
}
