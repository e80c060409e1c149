package registry

import (
	"maps"
	"net/http"
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
