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
	// maxToken bounds the answer of a token server in bytes.
	maxToken = 1 << 20
	// leastLife is the lifetime of a token if the server states none, or a shorter one.
	leastLife = time.Minute
)

// authorize adds the credential that the registry asks for to a request. It returns the
// token, if the credential is one.
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
	case c.cfg.Auth.Token != "":
		sent = c.cfg.Auth.Token
	default:
		if sent, err = c.bearer(req.Context(), ch); err != nil {
			return "", err
		}
	}
	req.Header.Set("Authorization", "Bearer "+sent)
	return sent, nil
}

// refused records that the registry has refused a token. It reports whether a request with
// a new token makes sense.
func (c *Client) refused(res *http.Response, sent string) bool {
	if res.Request.URL.Host != c.cfg.Host {
		return false // it was redirected, and was sent no credential
	}
	ch := choose(res.Header.Values("WWW-Authenticate"))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.cfg.Auth.Token != "", ch == nil && sent == "":
		return false
	case ch != nil && c.challenge == nil:
		// The root can be read without a credential, and this cannot.
	case sent == "":
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

// bearer returns a valid token. It requests one if there is none.
func (c *Client) bearer(ctx context.Context, ch *challenge) (string, error) {
	done, err := c.lock(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	c.mu.Lock()
	have := c.token
	c.mu.Unlock()
	if have.value != "" && time.Now().Before(have.expires) {
		return have.value, nil
	}
	got, err := c.fetchToken(ctx, ch)
	if err != nil {
		return "", fmt.Errorf("get a token for %s: %w", c.cfg.Host, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = got
	return got.value, nil
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
	b, err := io.ReadAll(io.LimitReader(res.Body, maxToken))
	if err != nil {
		return token{}, err
	}
	return parseToken(b, time.Now())
}

// tokenRequest asks by GET with user and password, or by POST with a refresh
// token.
func (c *Client) tokenRequest(ctx context.Context, ch *challenge) (*http.Request, error) {
	u, err := url.Parse(ch.params["realm"])
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		// Not the parser's error: the address is the registry's, and can be long.
		return nil, fmt.Errorf("the registry names no address of a token server: %w", errdefs.ErrInvalidArgument)
	}
	form := u.Query()
	if service := ch.params["service"]; service != "" {
		form.Set("service", service)
	}
	own := "repository:" + c.cfg.Repository + ":pull"
	form.Set("scope", own)
	if scope := ch.params["scope"]; scope != "" && scope != own {
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
		return nil, errors.New("request to the token server cannot be made")
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if req.Method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else if c.cfg.Auth.Username != "" && c.cfg.Auth.Password != "" {
		req.SetBasicAuth(c.cfg.Auth.Username, c.cfg.Auth.Password)
	}
	return req, nil
}

func parseToken(b []byte, now time.Time) (token, error) {
	var body struct {
		Token       string    `json:"token"`
		AccessToken string    `json:"access_token"`
		ExpiresIn   float64   `json:"expires_in"` // seconds
		IssuedAt    time.Time `json:"issued_at"`
	}
	// Without the parser's error, which can quote the token. A time that is none
	// leaves the rest as it is.
	var syntax *json.SyntaxError
	if err := json.Unmarshal(b, &body); errors.As(err, &syntax) {
		return token{}, fmt.Errorf("the answer of the token server is not JSON: %w", errdefs.ErrUnavailable)
	}
	value := body.Token
	if value == "" {
		value = body.AccessToken
	}
	if value == "" {
		return token{}, fmt.Errorf("the answer of the token server has no token: %w", errdefs.ErrUnavailable)
	}
	life := max(time.Duration(min(body.ExpiresIn, 1e6)*float64(time.Second)), leastLife)
	from := now
	if !body.IssuedAt.IsZero() && body.IssuedAt.Before(now) && now.Sub(body.IssuedAt) < life {
		from = body.IssuedAt
	}
	return token{value, from.Add(life)}, nil
}
