package registry

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestParseChallenges(t *testing.T) {
	for header, want := range map[string][]challenge{
		`Basic realm="a b"`: {{basic, map[string]string{"realm": "a b"}}},
		`Bearer realm="https://r/t",service="s, x", scope="repository:a:pull,push"`: {
			{bearer, map[string]string{"realm": "https://r/t", "service": "s, x", "scope": "repository:a:pull,push"}},
		},
		`BEARER realm = "q\"uoted" , error=invalid_token`: {{bearer, map[string]string{"realm": `q"uoted`, "error": "invalid_token"}}},
		`Negotiate, Bearer realm="r", Basic realm="b"`: {
			{"negotiate", map[string]string{}}, {bearer, map[string]string{"realm": "r"}}, {basic, map[string]string{"realm": "b"}},
		},
		`Bearer realm="r",service="",scope="repository:a:pull"`: {
			{bearer, map[string]string{"realm": "r", "service": "", "scope": "repository:a:pull"}},
		},
		`realm="no scheme"`:     nil,
		``:                      nil,
		`Bearer realm="no end`:  {{bearer, map[string]string{"realm": ""}}},
		`Bearer realm="no end\`: {{bearer, map[string]string{"realm": ""}}},
	} {
		got := parseChallenges(header)
		if len(got) != len(want) {
			t.Errorf("%s: got %v", header, got)
			continue
		}
		for i, ch := range got {
			if ch.scheme != want[i].scheme || !maps.Equal(ch.params, want[i].params) {
				t.Errorf("%s: got %v, want %v", header, ch, want[i])
			}
		}
	}
	if ch := chooseChallenge([]string{"Negotiate", `Bearer service="none"`, `Basic realm="b"`}); ch == nil || ch.scheme != basic {
		t.Errorf("chosen challenge: got %v, want basic", ch)
	}
}

func FuzzParseChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://r/t",service="s, x", scope="repository:a:pull,push"`)
	f.Add(`Negotiate, Basic realm="\"`)
	f.Fuzz(func(_ *testing.T, header string) { chooseChallenge([]string{header}) })
}

// TestTokenServerWithoutTLS requests tokens from a token server at http://. Only a registry that
// is configured as insecure may name such a server if the request has a secret.
func TestTokenServerWithoutTLS(t *testing.T) {
	for name, c := range map[string]struct {
		auth     Auth
		insecure bool
		ok       bool
	}{
		"anonymous":                {Auth{}, false, true},
		"password":                 {Auth{Username: "u", Password: "p"}, false, false},
		"identity token":           {Auth{IdentityToken: "i"}, false, false},
		"password, insecure":       {Auth{Username: "u", Password: "p"}, true, true},
		"identity token, insecure": {Auth{IdentityToken: "i"}, true, true},
	} {
		cl := client(t, "registry.example", func(cfg *Config) { cfg.Auth, cfg.Insecure = c.auth, c.insecure })
		_, err := cl.tokenRequest(t.Context(), &challenge{bearer, map[string]string{"realm": "http://registry.example/token"}})
		if c.ok && err != nil || !c.ok && !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

func TestTokenLifetime(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for body, want := range map[string]time.Duration{
		`{"token":"t"}`:                  minTokenLifetime,
		`{"token":"t","expires_in":300}`: 300 * time.Second,
		`{"token":"t","expires_in":-5}`:  minTokenLifetime,
		`{"access_token":"t","expires_in":300,"issued_at":"2026-01-02T03:03:05Z"}`: 240 * time.Second,
		`{"token":"t","expires_in":300,"issued_at":"2020-01-02T03:03:05Z"}`:        300 * time.Second, // the clock of the server is slow
		`{"token":"t","expires_in":1e300}`:                                         1e6 * time.Second,
	} {
		got, err := parseToken([]byte(body), now)
		if err != nil || got.value != "t" || got.expires.Sub(now) != want {
			t.Errorf("%s: got %v, %v, want a lifetime of %s", body, got, err, want)
		}
	}
	for _, body := range []string{"", "{", "{}", `{"token":""}`, "[]"} {
		if _, err := parseToken([]byte(body), now); err == nil {
			t.Errorf("parse %q: got no error", body)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "x": 0, "99999999999999999999": 0,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
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
