package registry

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
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

// TestRedirectOfRefreshToken runs a token server that redirects to another origin in a way that
// repeats the body of the request.
func TestRedirectOfRefreshToken(t *testing.T) {
	var got atomic.Value
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.FormValue("refresh_token"))
		fmt.Fprint(w, `{"token":"t"}`)
	})
	var host string
	host = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			http.Redirect(w, r, "http://"+other+"/token", http.StatusPermanentRedirect)
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, host))
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	c := client(t, host, func(cfg *Config) { cfg.Auth = Auth{IdentityToken: "secret"} })
	if _, _, err := c.Manifest(t.Context(), "1", nil); !errdefs.IsPermissionDenied(err) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got error %v", err)
	}
	if v := got.Load(); v != nil {
		t.Errorf("the other origin got the refresh token %q", v)
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

// TestBlobResume breaks the connection while the client reads a blob.
func TestBlobResume(t *testing.T) {
	const part = 300 << 10
	type answer func(w http.ResponseWriter, r *http.Request, from int64)
	full := func(w http.ResponseWriter, b []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(b)
	}
	ranged := func(w http.ResponseWriter, from, to int64) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
		w.Header().Set("Content-Length", fmt.Sprint(int64(len(content))-from))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(content[from:to])
	}
	for name, c := range map[string]struct {
		answer answer
		err    func(error) bool // nil: none
	}{
		"several interruptions": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			to := min(from+part, int64(len(content)))
			if from == 0 {
				full(w, content[:to])
			} else {
				ranged(w, from, to)
			}
			if to < int64(len(content)) {
				panic(http.ErrAbortHandler)
			}
		}, nil},
		"no ranges": {func(w http.ResponseWriter, r *http.Request, from int64) {
			if from == 0 {
				full(w, content[:part])
				panic(http.ErrAbortHandler)
			}
			full(w, content)
		}, nil},
		"too short, no Content-Length": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			if from == 0 {
				_, _ = w.Write(content[:part])
				w.(http.Flusher).Flush()
				return
			}
			ranged(w, from, int64(len(content)))
		}, nil},
		"broken after the last byte": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			if from > 0 {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			_, _ = w.Write(content)
			w.(http.Flusher).Flush() // the body is chunked
			panic(http.ErrAbortHandler)
		}, nil},
		"too long": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			_, _ = w.Write(append(bytes.Clone(content), 'x'))
		}, errdefs.IsDataLoss},
		"wrong range": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			if from == 0 {
				full(w, content[:part])
				panic(http.ErrAbortHandler)
			}
			ranged(w, from-1, int64(len(content)))
		}, errdefs.IsDataLoss},
		"no progress": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			if from == 0 {
				full(w, content[:part])
			} else {
				ranged(w, from, from)
			}
			panic(http.ErrAbortHandler)
		}, func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }},
		"deleted meanwhile": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			if from == 0 {
				full(w, content[:part])
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusNotFound)
		}, func(err error) bool { var s *StatusError; return errors.As(err, &s) && s.Code == 404 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if isRoot(r) {
					return
				}
				var from int64
				if h := r.Header.Get("Range"); h != "" {
					if _, err := fmt.Sscanf(h, "bytes=%d-", &from); err != nil {
						t.Errorf("got Range header %q", h)
					}
				}
				c.answer(w, r, from)
			})
			b, err := client(t, host, nil).fetch(t.Context())
			switch {
			case c.err == nil && (err != nil || !bytes.Equal(b, content)):
				t.Errorf("read %d bytes, %v", len(b), err)
			case c.err != nil && !c.err(err):
				t.Errorf("got error %v", err)
			}
		})
	}
}

// TestTokenRenewal runs a registry that refuses each token after two requests, although the
// token has not expired. In one case the root of the API needs no token.
func TestTokenRenewal(t *testing.T) {
	for name, openRoot := range map[string]bool{"root needs a token": false, "root needs no token": true} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var issued, uses int
			var host string
			host = serve(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if r.URL.Path == "/token" {
					issued++
					uses = 0
					if got := r.URL.Query()["scope"]; len(got) == 0 || got[0] != "repository:a:pull" {
						t.Errorf("got scope %q", got)
					}
					fmt.Fprintf(w, `{"token":"t%d","expires_in":300}`, issued)
					return
				}
				if isRoot(r) && openRoot {
					return
				}
				if uses++; r.Header.Get("Authorization") != fmt.Sprintf("Bearer t%d", issued) || uses > 2 {
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",scope="repository:a:pull"`, host))
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				_, _ = w.Write([]byte("{}"))
			})
			c := client(t, host, nil)
			for range 6 {
				if _, _, err := c.Manifest(t.Context(), "1", nil); err != nil {
					t.Fatal(err)
				}
			}
			if issued != 3 {
				t.Errorf("got %d tokens, want 3", issued)
			}
		})
	}
}

// TestBlobResumeAfterRestart restarts the server while the client reads a blob. The server
// refuses connections when the client tries to resume the blob the first time.
func TestBlobResumeAfterRestart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	var serverErr error
	var restart sync.WaitGroup
	second := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })}
	first := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isRoot(r) {
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:1000])
		_ = l.Close()
		restart.Go(func() {
			time.Sleep(1500 * time.Millisecond) // the client pauses for 1 s, and then for 2 s
			again, err := net.Listen("tcp", host)
			if err != nil {
				serverErr = err
				return
			}
			restart.Go(func() { _ = second.Serve(again) })
		})
		panic(http.ErrAbortHandler)
	})}
	restart.Go(func() { _ = first.Serve(l) })
	b, err := client(t, host, nil).fetch(t.Context())
	_, _ = first.Close(), second.Close()
	restart.Wait()
	if err != nil || serverErr != nil || !bytes.Equal(b, content) {
		t.Errorf("read %d bytes, %v, %v", len(b), err, serverErr)
	}
}

// TestBlobWithContentEncoding runs a server that labels a compressed blob with its encoding, as
// object stores do if the blob was stored with that label. The client must not decompress it.
func TestBlobWithContentEncoding(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(content)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	host := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed.Bytes())
	})
	r, _, err := client(t, host, nil).Blob(t.Context(), digest.FromBytes(packed.Bytes()), int64(packed.Len()))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, packed.Bytes()) {
		t.Errorf("read %d bytes, %v, want %d bytes", len(b), err, packed.Len())
	}
}

// TestBearerTokenWithReadableRoot runs a registry that asks for a credential for manifests only.
func TestBearerTokenWithReadableRoot(t *testing.T) {
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !isRoot(r) && r.Header.Get("Authorization") != "Bearer right" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://127.0.0.1:1/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	for token, code := range map[string]int{"right": 0, "wrong": http.StatusUnauthorized} {
		c := client(t, host, func(cfg *Config) { cfg.Auth = Auth{BearerToken: token} })
		_, _, err := c.Manifest(t.Context(), "1", nil)
		var s *StatusError
		if code == 0 && err != nil || code != 0 && (!errors.As(err, &s) || s.Code != code) {
			t.Errorf("%s token: got error %v", token, err)
		}
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
