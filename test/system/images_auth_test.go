package system

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	authUser     = "anna"
	authPassword = "s3cret:with colon"
	authRefresh  = "r3fresh-token"
	authBearer   = "b3arer-token"
)

// demand returns a handler that requires a password, or a token from a token server
// that accepts the password or a refresh token.
func demand(r *testRegistry, bearer bool) func(http.ResponseWriter, *http.Request) bool {
	refuse := func(w http.ResponseWriter) {
		challenge := `Basic realm="test"`
		if bearer {
			challenge = fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, r.host)
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`)
	}
	return func(w http.ResponseWriter, req *http.Request) bool {
		user, password, _ := req.BasicAuth()
		known := user == authUser && password == authPassword
		switch {
		case req.URL.Path == "/token":
			if !known && req.FormValue("refresh_token") != authRefresh {
				refuse(w)
				return true
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"token":%q,"access_token":%q,"expires_in":3600}`, authBearer, authBearer)
			return true
		case bearer && req.Header.Get("Authorization") == "Bearer "+authBearer, !bearer && known:
			return false
		}
		refuse(w)
		return true
	}
}

func (n *node) pullWith(t *testing.T, ref string, auth *cri.AuthConfig) error {
	t.Helper()
	_, err := n.ImageService.PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}, Auth: auth})
	return err
}

// secrets must not appear in errors and in the log, in any form.
var secrets = []string{
	"s3cret", authRefresh, authBearer,
	base64.StdEncoding.EncodeToString([]byte(authUser + ":" + authPassword)),
	base64.StdEncoding.EncodeToString([]byte(authPassword)),
}

func mustNotShow(t *testing.T, where, text string) {
	t.Helper()
	for _, s := range secrets {
		if i := strings.Index(text, s); i >= 0 {
			t.Errorf("%s contains a secret: …%.120s", where, text[max(0, i-60):])
		}
	}
}

func TestPullCredentials(t *testing.T) {
	n := pullNode(t, "auth")
	basic, bearer := newRegistry(t), newRegistry(t)
	n.trust(t, basic, bearer)
	basic.push(t, "a:1", small(t, "basic"))
	bearer.push(t, "a:1", small(t, "bearer"))
	basic.set(demand(basic, false))
	bearer.set(demand(bearer, true))
	encoded := base64.StdEncoding.EncodeToString([]byte(authUser + ":" + authPassword))
	both := []codes.Code{codes.OK, codes.OK}
	neither := []codes.Code{codes.Unauthenticated, codes.Unauthenticated}
	for name, c := range map[string]struct {
		auth func(host string) *cri.AuthConfig
		want []codes.Code // with a password, with a token
	}{
		"none":              {func(string) *cri.AuthConfig { return nil }, neither},
		"empty":             {func(string) *cri.AuthConfig { return &cri.AuthConfig{} }, neither},
		"username/password": {func(string) *cri.AuthConfig { return &cri.AuthConfig{Username: authUser, Password: authPassword} }, both},
		"wrong password":    {func(string) *cri.AuthConfig { return &cri.AuthConfig{Username: authUser, Password: "s3cret-not"} }, neither},
		"auth":              {func(string) *cri.AuthConfig { return &cri.AuthConfig{Auth: encoded} }, both},
		"auth, padded with zeroes": {func(string) *cri.AuthConfig {
			return &cri.AuthConfig{Auth: base64.StdEncoding.EncodeToString([]byte(authUser + ":" + authPassword + "\x00\x00"))}
		}, both},
		"auth, no base64": {func(string) *cri.AuthConfig { return &cri.AuthConfig{Auth: "s3cret!"} }, []codes.Code{codes.InvalidArgument, codes.InvalidArgument}},
		"auth, no colon": {func(string) *cri.AuthConfig {
			return &cri.AuthConfig{Auth: base64.StdEncoding.EncodeToString([]byte("s3cret"))}
		}, []codes.Code{codes.InvalidArgument, codes.InvalidArgument}},
		"identity_token":       {func(string) *cri.AuthConfig { return &cri.AuthConfig{IdentityToken: authRefresh} }, []codes.Code{codes.Unauthenticated, codes.OK}},
		"wrong identity_token": {func(string) *cri.AuthConfig { return &cri.AuthConfig{IdentityToken: "s3cret-x"} }, neither},
		"registry_token":       {func(string) *cri.AuthConfig { return &cri.AuthConfig{RegistryToken: authBearer} }, []codes.Code{codes.Unauthenticated, codes.OK}},
		"wrong registry_token": {func(string) *cri.AuthConfig { return &cri.AuthConfig{RegistryToken: "s3cret-x"} }, neither},
		"server_address of this": {func(host string) *cri.AuthConfig {
			return &cri.AuthConfig{Username: authUser, Password: authPassword, ServerAddress: "https://" + host + "/v2/"}
		}, both},
		"server_address of another": {func(string) *cri.AuthConfig {
			return &cri.AuthConfig{Username: authUser, Password: authPassword, ServerAddress: "registry.example"}
		}, neither},
	} {
		for i, r := range []*testRegistry{basic, bearer} {
			t.Run(fmt.Sprintf("%s, %s", name, []string{"basic", "bearer"}[i]), func(t *testing.T) {
				err := n.pullWith(t, r.host+"/a:1", c.auth(r.host))
				if status.Code(err) != c.want[i] {
					t.Errorf("pull %s/a:1: got error %v, want %s", r.host, err, c.want[i])
				}
				mustNotShow(t, "the error", fmt.Sprint(err))
			})
		}
	}
	log, err := os.ReadFile(n.LogPath()) // the log level is debug
	if err != nil {
		t.Fatal(err)
	}
	mustNotShow(t, "the log", string(log))
}

// TestCredentialsAreNotForwarded checks that credentials for one host are not sent to another host
// after a redirect (CVE-2020-15157), and not to a mirror.
func TestCredentialsAreNotForwarded(t *testing.T) {
	n := pullNode(t, "authstay")
	reg, other := newRegistry(t), newRegistryAt(t, "127.0.0.2")
	img := small(t, "redirected")
	reg.push(t, "a:1", img)
	other.push(t, "a:1", img)
	auth := &cri.AuthConfig{Username: authUser, Password: authPassword}
	gate := demand(reg, false)
	signed := func(w http.ResponseWriter, req *http.Request) bool {
		if gate(w, req) {
			return true
		}
		if !strings.Contains(req.URL.Path, "/blobs/") {
			return false
		}
		http.Redirect(w, req, "http://"+other.host+req.URL.Path+"?X-Signature=s3cret-signature", http.StatusTemporaryRedirect)
		return true
	}
	t.Run("redirect", func(t *testing.T) {
		n.trust(t, reg, other)
		reg.set(signed)
		if err := n.pullWith(t, reg.host+"/a:1", auth); err != nil {
			t.Fatalf("pull %s: %v", reg.host+"/a:1", err)
		}
		blobs := other.takeRequests("/blobs/")
		if len(blobs) == 0 {
			t.Error("requests after the redirect: got none, want some")
		}
		for _, b := range blobs {
			if b.authorization != "" {
				t.Errorf("credential in the request of %s: got %q, want none", b.path, b.authorization)
			}
		}
	})
	t.Run("address of a failed redirect", func(t *testing.T) {
		reg.push(t, "b:1", small(t, "another"))
		other.set(func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusBadGateway)
			return true
		})
		for range 2 {
			err := n.pullWith(t, reg.host+"/b:1", auth)
			if err == nil {
				t.Error("pull of a missing blob succeeded, want an error")
			}
			mustNotShow(t, "the error", fmt.Sprint(err))
			other.set(func(w http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) })
		}
		other.set(nil)
	})
	t.Run("mirror", func(t *testing.T) {
		reg.set(gate)
		mirror := newRegistry(t)
		mirror.set(demand(mirror, false)) // the mirror would accept the credentials
		n.writeFile(t, "registries.conf", n.Registries+fmt.Sprintf(`
[[registry]]
location = %q
insecure = true
[[registry.mirror]]
location = %q
insecure = true
`, reg.host, mirror.host))
		for name, a := range map[string]*cri.AuthConfig{
			"password":       auth,
			"identity token": {Username: authUser, Password: authPassword, IdentityToken: authRefresh},
		} {
			if err := n.pullWith(t, reg.host+"/a:1", a); err != nil && name == "password" {
				t.Errorf("pull with %s: %v", name, err)
			}
			requests := mirror.takeRequests("")
			if len(requests) == 0 {
				t.Errorf("%s: requests to the mirror: got none, want some", name)
			}
			for _, req := range requests {
				raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(req.authorization, "Basic "))
				// Without credentials, the client sends ":" if the registry demands a password.
				if string(raw) != "" && string(raw) != ":" {
					t.Errorf("%s: credential in a request to the mirror: got %q, want none", name, req.authorization)
				}
			}
		}
	})
	log, err := os.ReadFile(n.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	mustNotShow(t, "the log", string(log))
}

// TestPullsShareNoCredentials checks that a client without access does not get an image
// while a client with access is pulling it, or when the layers are in the store.
func TestPullsShareNoCredentials(t *testing.T) {
	n := pullNode(t, "authjoin")
	reg := newRegistry(t)
	n.trust(t, reg)
	img := small(t, "private")
	ref := reg.push(t, "private:1", img)
	ask, g := demand(reg, false), newGate(1<<20)
	slow := g.serve(reg, blobOf(t, img))
	reg.set(func(w http.ResponseWriter, req *http.Request) bool { return ask(w, req) || slow(w, req) })
	wait := n.pulling(t.Context(), t, ref, &cri.AuthConfig{Username: authUser, Password: authPassword})
	<-g.begun
	others := []*cri.AuthConfig{nil, {Username: "berta", Password: "x"}, {Username: authUser, Password: "x"}}
	for range 2 {
		for _, auth := range others {
			if err := n.pullWith(t, ref, auth); status.Code(err) != codes.Unauthenticated {
				t.Errorf("pull with %v: got error %v, want Unauthenticated", auth, err)
			}
		}
		if wait == nil {
			break
		}
		close(g.next)
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		wait = nil // the second round runs with the image in the store
	}
}

// TestAuthFile checks that the credentials of the node are used for requests without
// credentials, and for mirrors.
func TestAuthFile(t *testing.T) {
	n := makeNode("authfile")
	n.settings(t, fmt.Sprintf("auth_file = %q", n.Dir+"/auth.json"))
	encoded := base64.StdEncoding.EncodeToString([]byte(authUser + ":" + authPassword))
	file := func(r *testRegistry) {
		t.Helper()
		n.writeFile(t, "auth.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.host, encoded))
	}
	reg, mirror := newRegistry(t), newRegistry(t)
	file(reg)
	n.start(t)
	n.trust(t, reg)
	reg.push(t, "a:1", small(t, "by file"))
	reg.set(demand(reg, true))
	if err := n.pullWith(t, reg.host+"/a:1", nil); err != nil {
		t.Errorf("pull %s: %v", reg.host+"/a:1", err)
	}
	if err := n.pullWith(t, reg.host+"/a:1", &cri.AuthConfig{Username: authUser, Password: "x"}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("pull with wrong credentials of the request and correct ones of the file: got error %v, want Unauthenticated", err)
	}
	other := &cri.AuthConfig{Username: authUser, Password: authPassword, ServerAddress: "registry.example"}
	if err := n.pullWith(t, reg.host+"/a:1", other); err != nil {
		t.Errorf("pull with credentials for another host and correct ones of the file: got error %v, want none", err)
	}
	mirror.push(t, "m:1", small(t, "of the mirror"))
	mirror.set(demand(mirror, false))
	file(mirror)
	reg.takeRequests("")
	n.mirrored(t, reg.host, mirrorAt(mirror))
	if err := n.pullWith(t, "registry.example/m:1", &cri.AuthConfig{Username: "someone", Password: "else"}); err != nil {
		t.Errorf("pull registry.example/m:1: %v", err)
	}
	if requests := reg.takeRequests(""); len(requests) > 0 {
		t.Errorf("requests to the registry: got %v, want none, because the mirror has the image", requests)
	}
	n.writeFile(t, "auth.json", "{")
	if err := n.pullWith(t, "registry.example/m:1", nil); err == nil {
		t.Error("pull with an unreadable file of credentials succeeded, want an error")
	} else {
		mustNotShow(t, "the error", err.Error())
	}
	n.trust(t, reg)
	file(reg)
}
