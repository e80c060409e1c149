package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

var (
	content = bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	sum     = digest.FromBytes(content)
)

// serve starts a server with a handler and returns the host and port of the server.
func serve(tb testing.TB, handler http.HandlerFunc) string {
	tb.Helper()
	srv := httptest.NewServer(handler)
	tb.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// client returns a client for the repository "a" of a registry with plain HTTP.
func client(tb testing.TB, host string, change func(*Config)) *Client {
	tb.Helper()
	cfg := Config{Host: host, Repository: "a", Insecure: true, UserAgent: "test", Attempts: 4, KeepAlive: func() {}}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

// fetch reads the blob sum. The size of the blob is known, as from a manifest.
func (c *Client) fetch(ctx context.Context) ([]byte, error) {
	r, _, err := c.Blob(ctx, sum, int64(len(content)))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func isRoot(r *http.Request) bool { return r.URL.Path == "/v2/" }

// TestRedirectRemovesCredential runs a registry that redirects blobs to its own origin, which
// gets the credential, and from there to a storage at another port of the same host, which
// must not get the credential: object stores refuse requests with two credentials.
func TestRedirectRemovesCredential(t *testing.T) {
	var storageAuth, redirectAuth atomic.Value
	storage := serve(t, func(w http.ResponseWriter, r *http.Request) {
		storageAuth.Store(r.Header.Get("Authorization"))
		_, _ = w.Write(content)
	})
	for name, challenge := range map[string]string{"basic": `Basic realm="x"`, "bearer": `Bearer realm="http://%s/token"`} {
		var host string
		host = serve(t, func(w http.ResponseWriter, r *http.Request) {
			sent := r.Header.Get("Authorization")
			switch {
			case r.URL.Path == "/token":
				fmt.Fprint(w, `{"token":"t"}`)
			case sent == "":
				w.Header().Set("WWW-Authenticate", strings.ReplaceAll(challenge, "%s", host))
				w.WriteHeader(http.StatusUnauthorized)
			case isRoot(r):
			case strings.HasPrefix(r.URL.Path, "/v2/a/blobs/"):
				http.Redirect(w, r, "/redirected", http.StatusTemporaryRedirect)
			case r.URL.Path == "/redirected":
				redirectAuth.Store(sent)
				http.Redirect(w, r, "http://"+storage+"/signed", http.StatusTemporaryRedirect)
			}
		})
		c := client(t, host, func(cfg *Config) { cfg.Auth = Auth{Username: "u", Password: "p"} })
		if b, err := c.fetch(t.Context()); err != nil || !bytes.Equal(b, content) {
			t.Errorf("%s: read %d bytes, %v", name, len(b), err)
		}
		if got := storageAuth.Load(); got != "" {
			t.Errorf("%s: the storage at another port got the credential %q", name, got)
		}
		if got := redirectAuth.Load(); got == "" {
			t.Errorf("%s: the registry got no credential after a redirect to itself", name)
		}
	}
}

// TestRetry runs a server that fails a number of requests of one kind, like a server that is
// overloaded or being replaced.
func TestRetry(t *testing.T) {
	for name, c := range map[string]struct {
		path  string
		fail  func(w http.ResponseWriter)
		times int32
		ok    bool
		code  int   // of the error
		sent  int32 // number of requests
		least time.Duration
	}{
		"503 for the root":      {"/v2/", status(503), 1, true, 0, 2, time.Second},
		"503 for a manifest":    {"/manifests/", status(503), 1, true, 0, 2, time.Second},
		"500 for a blob":        {"/blobs/", status(500), 2, true, 0, 3, 3 * time.Second},
		"503 from token server": {"/token", status(503), 1, true, 0, 2, time.Second},
		"429":                   {"/blobs/", status(429), 1, true, 0, 2, time.Second},
		"Retry-After":           {"/manifests/", after("2", 429), 1, true, 0, 2, 2 * time.Second},
		"Retry-After too long":  {"/manifests/", after("3600", 503), 1, false, 503, 1, 0},
		"connection closed":     {"/manifests/", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, 1, true, 0, 2, 0}, // net/http repeats the request
		"503 every time":        {"/manifests/", status(503), 100, false, 503, 4, 7 * time.Second},
		"403":                   {"/blobs/", status(403), 1, false, 403, 1, 0},
		"404":                   {"/manifests/", status(404), 1, false, 404, 1, 0},
		"401 from token server": {"/token", status(401), 1, false, 401, 1, 0},
		"501, not temporary":    {"/blobs/", status(501), 1, false, 501, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int32
			var host string
			host = serve(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, c.path) && (c.path != "/v2/" || isRoot(r)) {
					if sent.Add(1) <= c.times {
						c.fail(w)
						return
					}
				}
				switch {
				case r.URL.Path == "/token":
					fmt.Fprint(w, `{"access_token":"t"}`)
				case r.Header.Get("Authorization") != "Bearer t":
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, host))
					w.WriteHeader(http.StatusUnauthorized)
				case strings.Contains(r.URL.Path, "/blobs/"):
					_, _ = w.Write(content)
				case strings.Contains(r.URL.Path, "/manifests/"):
					_, _ = w.Write([]byte("{}"))
				}
			})
			began := time.Now()
			cl := client(t, host, nil)
			_, _, err := cl.Manifest(t.Context(), "1", nil)
			if err == nil {
				_, err = cl.fetch(t.Context())
			}
			var answer *StatusError
			if c.ok && err != nil || !c.ok && (!errors.As(err, &answer) || answer.Code != c.code) {
				t.Errorf("got error %v", err)
			}
			if n := sent.Load(); n != c.sent {
				t.Errorf("got %d requests, want %d", n, c.sent)
			}
			if d := time.Since(began); d < c.least {
				t.Errorf("took %s, want at least %s", d, c.least)
			}
		})
	}
}

func status(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(code) }
}

func after(value string, code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", value)
		w.WriteHeader(code)
	}
}

// TestPingErrorMessage checks that the error of a failed ping has the message of the registry.
func TestPingErrorMessage(t *testing.T) {
	host := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"errors":[{"code":"UNAVAILABLE","message":"maintenance until noon"}]}`)
	})
	_, _, err := client(t, host, func(cfg *Config) { cfg.Attempts = 1 }).Manifest(t.Context(), "1", nil)
	var s *StatusError
	if !errors.As(err, &s) || s.Message != "unavailable: maintenance until noon" {
		t.Errorf("got error %v", err)
	}
}

func TestStatusErrorMessage(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for body, want := range map[string]string{
		`{"errors":[{"code":"DENIED","message":"your key was revoked"}]}`: "denied: your key was revoked",
		`{"details":"incorrect username or password"}`:                    "incorrect username or password",
		"try\nlater":     "try later",
		"<html>x</html>": "",
		"":               "",
		long:             strings.Repeat("x", maxMessage) + "…",
	} {
		host := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if !isRoot(r) {
				w.WriteHeader(http.StatusForbidden)
				_, _ = w.Write([]byte(body))
			}
		})
		_, _, err := client(t, host, nil).Manifest(t.Context(), "1", nil)
		var s *StatusError
		if !errors.As(err, &s) || s.Message != want || s.Code != http.StatusForbidden {
			t.Errorf("%.80q: got error %v, want message %.80q", body, err, want)
		}
	}
}
