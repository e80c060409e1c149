package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// token is a bearer token.
type token struct {
	value   string
	expires time.Time
}

const (
	// maxTokenResponse is the maximum size of a token server's response in bytes.
	maxTokenResponse = 1 << 20
	// minTokenLifetime is the lifetime of a token if the server states none or a shorter one.
	minTokenLifetime = time.Minute
)

// authorize adds the credential that the registry's challenge asks for to a request. If the
// credential is a bearer token, authorize returns the token.
func (c *Client) authorize(req *http.Request) (sent string, err error) {
	c.mu.Lock()
	ch := c.challenge
	c.mu.Unlock()
	switch {
	case ch == nil:
		return "", nil
	case ch.scheme == basic:
		if c.cfg.Auth.Username != "" || c.cfg.Auth.Password != "" {
			req.SetBasicAuth(c.cfg.Auth.Username, c.cfg.Auth.Password)
		}
		return "", nil
	case c.cfg.Auth.BearerToken != "":
		sent = c.cfg.Auth.BearerToken
	default:
		if sent, err = c.bearerToken(req.Context(), ch); err != nil {
			return "", err
		}
	}
	req.Header.Set("Authorization", "Bearer "+sent)
	return sent, nil
}

// renewToken handles a response with the status 401 to a request with the token sent, or "".
// It stores the challenge in the response and drops the token, which has expired or has another
// scope. It reports whether the request should be sent again with a new token.
func (c *Client) renewToken(res *http.Response, sent string) bool {
	if res.Request.URL.Host != c.cfg.Host {
		return false // the request was redirected and had no credential
	}
	ch := chooseChallenge(res.Header.Values("WWW-Authenticate"))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ch != nil && c.challenge == nil:
		// The root of the API is readable without a credential, but this path is not.
	case sent == "", sent == c.cfg.Auth.BearerToken:
		return false
	}
	if ch != nil {
		c.challenge = ch
	}
	if c.token.value == sent {
		c.token = token{}
	}
	return true
}

// bearerToken returns the current token, or requests a new token if there is none or if the
// current token has expired.
func (c *Client) bearerToken(ctx context.Context, ch *challenge) (string, error) {
	unlock, err := c.lockNegotiation(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	c.mu.Lock()
	current := c.token
	c.mu.Unlock()
	if current.value != "" && time.Now().Before(current.expires) {
		return current.value, nil
	}
	fetched, err := c.fetchToken(ctx, ch)
	if err != nil {
		return "", fmt.Errorf("request token for registry %s: %w", c.cfg.Host, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = fetched
	return fetched.value, nil
}

func (c *Client) fetchToken(ctx context.Context, ch *challenge) (token, error) {
	req, err := c.tokenRequest(ctx, ch)
	if err != nil {
		return token{}, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return token{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return token{}, newStatusError(res)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxTokenResponse))
	if err != nil {
		return token{}, err
	}
	return parseToken(b, time.Now())
}

// tokenRequest returns the request for a token: a POST with the refresh token if there is one,
// otherwise a GET with user and password.
func (c *Client) tokenRequest(ctx context.Context, ch *challenge) (*http.Request, error) {
	u, err := url.Parse(ch.params["realm"])
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		// The parser's error is left out, because it quotes the address, which can be long.
		return nil, fmt.Errorf("the realm in the registry's challenge is not an HTTP URL: %w", errdefs.ErrInvalidArgument)
	}
	if u.Scheme == "http" && !c.cfg.Insecure && (c.cfg.Auth.IdentityToken != "" || c.cfg.Auth.Password != "") {
		return nil, fmt.Errorf("token server %.100s uses plain HTTP, and the registry is not configured as insecure: %w", u.Host, errdefs.ErrPermissionDenied)
	}
	form := u.Query()
	if service := ch.params["service"]; service != "" {
		form.Set("service", service)
	}
	pullScope := "repository:" + c.cfg.Repository + ":pull"
	form.Set("scope", pullScope)
	if scope := ch.params["scope"]; scope != "" && scope != pullScope {
		form.Add("scope", scope)
	}
	var req *http.Request
	if c.cfg.Auth.IdentityToken != "" {
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", c.cfg.Auth.IdentityToken)
		form.Set("client_id", c.cfg.UserAgent)
		req, err = http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(form.Encode()))
	} else {
		if c.cfg.Auth.Username != "" {
			form.Set("account", c.cfg.Auth.Username)
		}
		u.RawQuery = form.Encode()
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	}
	if err != nil {
		return nil, errors.New("create request to the token server")
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if req.Method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else if c.cfg.Auth.Username != "" && c.cfg.Auth.Password != "" {
		req.SetBasicAuth(c.cfg.Auth.Username, c.cfg.Auth.Password)
	}
	return req, nil
}

// parseToken parses the response of a token server.
func parseToken(b []byte, now time.Time) (token, error) {
	var body struct {
		Token       string    `json:"token"`
		AccessToken string    `json:"access_token"`
		ExpiresIn   float64   `json:"expires_in"` // seconds
		IssuedAt    time.Time `json:"issued_at"`
	}
	// Errors do not include the parser's error, which can quote the token. A field of a wrong
	// type, such as an invalid time, is ignored.
	var syntax *json.SyntaxError
	if err := json.Unmarshal(b, &body); errors.As(err, &syntax) {
		return token{}, fmt.Errorf("the response of the token server is not JSON: %w", errdefs.ErrUnavailable)
	}
	value := body.Token
	if value == "" {
		value = body.AccessToken
	}
	if value == "" {
		return token{}, fmt.Errorf("the response of the token server has no token: %w", errdefs.ErrUnavailable)
	}
	lifetime := max(time.Duration(min(body.ExpiresIn, 1e6)*float64(time.Second)), minTokenLifetime)
	issued := now
	// Without this check, a token server whose clock is slow would issue expired tokens.
	if !body.IssuedAt.IsZero() && body.IssuedAt.Before(now) && now.Sub(body.IssuedAt) < lifetime {
		issued = body.IssuedAt
	}
	return token{value, issued.Add(lifetime)}, nil
}
