package image

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/image/internal/imagetest"
	"github.com/criserver/criserver/image/pull"
)

func TestCredentials(t *testing.T) {
	const user, password = "anna", "s3cret:with colon"
	encoded := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	for _, bearer := range []bool{false, true} {
		reg, other := imagetest.NewRegistry(t), imagetest.NewRegistry(t)
		b := newBed(t, reg, other)
		reg.Push("a", "1", three(t))
		reg.Set(imagetest.Faults{User: user, Password: password, Bearer: bearer})
		token := imagetest.Token(user, password)
		for name, c := range map[string]struct {
			auth *Auth
			ok   bool
		}{
			"none":            {nil, false},
			"password":        {&Auth{Username: user, Password: password}, true},
			"wrong password":  {&Auth{Username: user, Password: "x"}, false},
			"encoded":         {&Auth{Encoded: encoded}, true},
			"not base64":      {&Auth{Encoded: "s3cret!"}, false},
			"for this server": {&Auth{Username: user, Password: password, ServerAddress: "http://" + reg.Host + "/v1/"}, true},
			"for another":     {&Auth{Username: user, Password: password, ServerAddress: "registry.example"}, false},
			"identity token":  {&Auth{IdentityToken: password}, bearer},
			"registry token":  {&Auth{RegistryToken: token}, bearer},
			"empty":           {&Auth{}, false},
		} {
			t.Run(fmt.Sprint(name, ", bearer ", bearer), func(t *testing.T) {
				_, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1", Auth: c.auth})
				if c.ok != (err == nil) {
					t.Errorf("got %v", err)
				}
				if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), token)) {
					t.Errorf("error has a secret: %v", err)
				}
				if err != nil && !errdefs.IsUnauthorized(err) && !errdefs.IsInvalidArgument(err) {
					t.Errorf("got error of another class: %v", err)
				}
			})
		}
		write(t, b.cfg.AuthFile, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, reg.Host, encoded))
		b.pull(t, reg.Host+"/a:1")
	}
}

// TestMirrorGetsNoCredential pulls through a mirror that asks for a credential. The mirror must not
// receive the credential of the registry.
func TestMirrorGetsNoCredential(t *testing.T) {
	reg, mirror := imagetest.NewRegistry(t), imagetest.NewRegistry(t)
	b := newBed(t)
	write(t, b.cfg.RegistriesConf, fmt.Sprintf(`
[[registry]]
location = %q
insecure = true
[[registry.mirror]]
location = %q
insecure = true
`, reg.Host, mirror.Host))
	reg.Push("a", "1", three(t))
	mirror.Set(imagetest.Faults{User: "x", Password: "y"})
	for _, auth := range []Auth{{Username: "anna", Password: "pw"}, {RegistryToken: "tok"}, {IdentityToken: "tok"}} {
		reg.Requests()
		mirror.Requests()
		if _, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1", Auth: &auth}); err != nil {
			t.Fatal(err)
		}
		if len(mirror.Requests()) == 0 {
			t.Error("mirror got no request")
		}
		if sent := mirror.Authorization(); sent != "" {
			t.Errorf("mirror got the credential %q", sent)
		}
	}
}

func TestMirrorsAndShortNames(t *testing.T) {
	reg, mirror := imagetest.NewRegistry(t), imagetest.NewRegistry(t)
	b := newBed(t)
	write(t, b.cfg.RegistriesConf, fmt.Sprintf(`
unqualified-search-registries = ["none.example", "registry.example"]
short-name-mode = "permissive"
[aliases]
"tool" = "registry.example/deep/tool"
[[registry]]
prefix = "registry.example"
location = %[1]q
insecure = true
[[registry.mirror]]
location = %[2]q
insecure = true
[[registry.mirror]]
location = %[3]q
insecure = true
[[registry]]
prefix = "none.example"
location = %[2]q
insecure = true
`, reg.Host, imagetest.DeadHost(t), mirror.Host))
	mirror.Push("a", "1", three(t))
	reg.Push("deep/tool", "latest", imagetest.Image{Layers: three(t).Layers[:1]})
	img := b.pull(t, "registry.example/a:1")
	equalList(t, "tags", img.RepoTags, []string{"registry.example/a:1"})
	for _, ref := range []string{"a:1", "registry.example/a:1", img.RepoDigests[0], img.ID.String()} {
		if got, err := b.Get(ref); err != nil || got.ID != img.ID {
			t.Errorf("%s: %v, %v", ref, got.ID, err)
		}
	}
	tool := b.pull(t, "tool")
	equalList(t, "tags", tool.RepoTags, []string{"registry.example/deep/tool:latest"})
	if got, err := b.Get("tool"); err != nil || got.ID != tool.ID {
		t.Errorf("tool: %v, %v", got.ID, err)
	}
	for ref, want := range map[string][]string{
		"tool":                 {"registry.example/deep/tool", "none.example/tool", "registry.example/tool", "docker.io/library/tool"},
		"a:1":                  {"none.example/a", "registry.example/a", "docker.io/library/a"},
		"registry.example/a:1": {"registry.example/a"},
		"a b":                  nil,
	} {
		equalList(t, "repositories of "+ref, slices.DeleteFunc(b.Repositories(ref), func(r string) bool { return strings.HasPrefix(r, "localhost/") }), want)
	}
	again := b.pull(t, "a:1") // the first candidate cannot be reached
	equal(t, "image", again.ID, img.ID)
}

func TestPolicy(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	reg.Push("a", "1", three(t))
	write(t, b.cfg.PolicyPath, `{"default":[{"type":"reject"}]}`)
	_, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"})
	if !errors.Is(err, pull.ErrSignatureValidationFailed) || !strings.HasPrefix(err.Error(), "SignatureValidationFailed: ") {
		t.Errorf("got %v", err)
	}
	equal(t, "layers fetched", imagetest.Blobs(reg.Requests()), 0)
	if err := os.Remove(b.cfg.PolicyPath); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pull with a missing policy file: got %v", err)
	}
	t.Run("none", func(t *testing.T) {
		if _, err := os.Stat("/etc/containers/policy.json"); err == nil {
			t.Skip("the system has a policy.json")
		}
		b.cfg.PolicyPath = ""
		b.restart(t)
		b.pull(t, reg.Host+"/a:1")
	})
}

// TestShortNameNextCandidate pulls a short name. The first candidate stalls during a layer, which
// the second candidate also has.
func TestShortNameNextCandidate(t *testing.T) {
	bad, good := imagetest.NewRegistry(t), imagetest.NewRegistry(t)
	b := newBed(t, bad, good)
	b.cfg.ProgressWindow = 3 * time.Second // a busy machine must not make the good registry look stalled
	b.restart(t)
	write(t, b.cfg.RegistriesConf, fmt.Sprintf("unqualified-search-registries = [%[1]q, %[2]q]\n[[registry]]\nlocation = %[1]q\ninsecure = true\n[[registry]]\nlocation = %[2]q\ninsecure = true\n", bad.Host, good.Host))
	layer := imagetest.Files(t, imagetest.File("f", noise(1<<20)))
	for _, r := range []*imagetest.Registry{bad, good} {
		r.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{layer}})
	}
	bad.Set(onBlob(layer.Digest(), imagetest.Stall))
	equalList(t, "tags", b.pull(t, "a:1").RepoTags, []string{good.Host + "/a:1"})
}

// TestMirrorWithOversizedManifest pulls from a mirror that answers each request for a manifest
// with more bytes than a manifest may have.
func TestMirrorWithOversizedManifest(t *testing.T) {
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			_, _ = w.Write(make([]byte, 5<<20))
		}
	}))
	t.Cleanup(mirror.Close)
	reg := imagetest.NewRegistry(t)
	b := newBed(t)
	write(t, b.cfg.RegistriesConf, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n",
		reg.Host, strings.TrimPrefix(mirror.URL, "http://")))
	reg.Push("a", "1", three(t))
	b.pull(t, reg.Host+"/a:1")
}
