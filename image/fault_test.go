package image

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/criserver/criserver/image/internal/imagetest"
	"github.com/criserver/criserver/image/pull"
)

// onBlob returns faults with a handler for the requests for one blob.
func onBlob(want digest.Digest, answer func(http.ResponseWriter, *http.Request, []byte)) imagetest.Faults {
	return imagetest.Faults{Blob: func(w http.ResponseWriter, r *http.Request, d digest.Digest, b []byte) bool {
		if d == want {
			answer(w, r, b)
		}
		return d == want
	}}
}

// noise returns n bytes or more that do not compress well.
func noise(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(digest.FromString(fmt.Sprint(i)).Encoded())
	}
	return b.String()
}

func TestResumePull(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request, []byte){
		"truncated": func(w http.ResponseWriter, _ *http.Request, b []byte) { imagetest.Truncate(w, b) },
		"corrupt": func(w http.ResponseWriter, _ *http.Request, b []byte) {
			b = append([]byte(nil), b...)
			b[len(b)/2] ^= 0xff
			_, _ = w.Write(b)
		},
		"too short":   func(w http.ResponseWriter, _ *http.Request, b []byte) { _, _ = w.Write(b[:len(b)-100]) },
		"bad gateway": func(w http.ResponseWriter, r *http.Request, _ []byte) { http.Error(w, "", http.StatusBadGateway) },
	} {
		t.Run(name, func(t *testing.T) {
			reg := imagetest.NewRegistry(t)
			b := newBed(t, reg)
			good := imagetest.Files(t, imagetest.File("good", "g"))
			bad := imagetest.Files(t, imagetest.File("bad", noise(1<<20)))
			reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{good, bad}})
			unpacked := make(chan struct{})
			reg.Set(onBlob(bad.Digest(), func(w http.ResponseWriter, r *http.Request, content []byte) {
				select {
				case <-unpacked:
				default:
					if err := waitFor("the other layer", func() bool { _, ok := b.layers.Get(good.DiffID); return ok }); err != nil {
						t.Error(err)
					}
					close(unpacked)
				}
				answer(w, r, content)
			}))
			_, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"})
			if !errdefs.IsUnavailable(err) && !errdefs.IsDataLoss(err) {
				t.Fatalf("got %v", err)
			}
			if len(b.List()) > 0 {
				t.Errorf("got images %v", b.List())
			}
			b.restart(t) // like after a crash
			if staged := names(t, b.Manager.dir(stageDir)); len(staged) > 0 {
				t.Errorf("leftovers in the staging directory: %v", staged)
			}
			reg.Set(imagetest.Faults{})
			reg.Requests()
			root, _ := b.mount(t, b.pull(t, reg.Host+"/a:1"))
			equal(t, "file", read(t, root, "good"), "g")
			if n := imagetest.Blobs(reg.Requests(), good.Digest()); n > 0 {
				t.Errorf("complete layer was fetched again %d times", n)
			}
		})
	}
}

func TestStalledPull(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	b.cfg.ProgressWindow = 200 * time.Millisecond
	b.restart(t)
	layer := imagetest.Files(t, imagetest.File("f", noise(1<<20)))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{layer}})
	reg.Set(onBlob(layer.Digest(), imagetest.Stall))
	_, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "200ms") {
		t.Errorf("got %v", err)
	}
	if !strings.HasPrefix(err.Error(), "RegistryUnavailable: ") {
		t.Errorf("error %q does not begin with the text for the kubelet", err)
	}
}

func TestRefusedImageCleanup(t *testing.T) {
	file := imagetest.Files(t, imagetest.File("f", "x"))
	with := func(change func(*imagetest.Layer)) imagetest.Image {
		l := imagetest.Files(t, imagetest.File("f", "y"))
		change(&l)
		return imagetest.Image{Layers: []imagetest.Layer{file, l}}
	}
	many := imagetest.Image{}
	for range 6 {
		many.Layers = append(many.Layers, file)
	}
	for name, c := range map[string]struct {
		image imagetest.Image
		is    func(error) bool
	}{
		"encrypted":         {with(func(l *imagetest.Layer) { l.MediaType += "+encrypted" }), errdefs.IsNotImplemented},
		"foreign":           {with(func(l *imagetest.Layer) { l.URLs = []string{"https://example.com/layer"} }), errdefs.IsNotImplemented},
		"unknown type":      {with(func(l *imagetest.Layer) { l.MediaType = "application/x-thing" }), errdefs.IsInvalidArgument},
		"wrong diff id":     {imagetest.Image{Layers: []imagetest.Layer{file}, DiffIDs: []digest.Digest{digest.FromString("x")}}, errdefs.IsInvalidArgument},
		"too many diff ids": {imagetest.Image{Layers: []imagetest.Layer{file}, DiffIDs: []digest.Digest{file.DiffID, file.DiffID}}, errdefs.IsInvalidArgument},
		"escape":            {imagetest.Image{Layers: []imagetest.Layer{file, imagetest.Files(t, imagetest.File("../../f", ""))}}, errdefs.IsInvalidArgument},
		"layers":            {many, errdefs.IsInvalidArgument},
		"invalid config":    {imagetest.Image{Layers: []imagetest.Layer{file}, RawConfig: []byte("{")}, func(err error) bool { return err != nil }},
	} {
		t.Run(name, func(t *testing.T) {
			reg := imagetest.NewRegistry(t)
			b := newBed(t, reg)
			b.cfg.Limits.Layers = 5
			b.restart(t)
			reg.Push("a", "1", c.image)
			if _, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"}); !c.is(err) {
				t.Errorf("got %v", err)
			}
			if n := b.layerCount(t); n > 0 {
				t.Errorf("got %d layers, want none", n)
			}
			equal(t, "images", len(names(t, b.Manager.dir(imagesDir))), 0)
		})
	}
}

func TestRegistryErrors(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	reg.Push("a", "1", three(t))
	dead := imagetest.DeadHost(t)
	for ref, is := range map[string]func(error) bool{
		reg.Host + "/a:2":        errdefs.IsNotFound,
		reg.Host + "/b:1":        errdefs.IsNotFound,
		dead + "/a:1":            errdefs.IsUnavailable,
		"":                       errdefs.IsInvalidArgument,
		"UPPER/case":             errdefs.IsInvalidArgument,
		"sha256:" + noise(64):    errdefs.IsInvalidArgument,
		reg.Host + "/a@sha256:1": errdefs.IsInvalidArgument,
		reg.Host + "/a@" + digest.FromString("none").String(): errdefs.IsNotFound,
	} {
		if _, err := b.Pull(t.Context(), PullRequest{Ref: ref}); !is(err) {
			t.Errorf("%q: got %v", ref, err)
		}
	}
	reg.Set(imagetest.Faults{Down: true})
	if _, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"}); !errors.Is(err, pull.ErrRegistryUnavailable) {
		t.Errorf("got %v", err)
	}
}

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
// get that of the registry.
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

func TestPullJoinsRunningPull(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	layer := imagetest.Files(t, imagetest.File("f", "x"))
	shared := imagetest.Image{Layers: []imagetest.Layer{layer, layer, imagetest.Files(t, imagetest.File("g", ""))}}
	reg.Push("a", "1", shared)
	other := shared
	other.Comment = "other"
	reg.Push("b", "1", other)
	started, release := make(chan struct{}, 10), make(chan struct{})
	reg.Set(onBlob(layer.Digest(), func(w http.ResponseWriter, _ *http.Request, b []byte) {
		started <- struct{}{}
		<-release
		_, _ = w.Write(b)
	}))
	var all sync.WaitGroup
	startPull := func(ref string) {
		all.Go(func() {
			if _, err := b.Pull(context.Background(), PullRequest{Ref: reg.Host + ref}); err != nil {
				t.Error(err)
			}
		})
	}
	startPull("/a:1")
	<-started
	startPull("/a:1") // the same image
	startPull("/b:1") // another image with the same layers
	eventually(t, "request for the other image", func() bool {
		return strings.Contains(strings.Join(reg.Requests(), " "), "/v2/b/manifests/1")
	})
	close(release)
	all.Wait()
	equal(t, "fetches of the shared layer", 1+len(started), 1)
	equal(t, "images", len(b.List()), 2)
	equal(t, "layers", b.layerCount(t), 2)
	for _, img := range b.List() {
		root, _ := b.mount(t, img)
		equal(t, "file", read(t, root, "f"), "x")
	}
}

func TestPullCancelledByLastCaller(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	layer := imagetest.Files(t, imagetest.File("f", noise(1<<20)))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{layer}})
	started := make(chan struct{}, 1)
	ended := make(chan struct{})
	reg.Set(onBlob(layer.Digest(), func(w http.ResponseWriter, r *http.Request, b []byte) {
		started <- struct{}{}
		imagetest.Stall(w, r, b)
		close(ended)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if _, err := b.Pull(ctx, PullRequest{Ref: reg.Host + "/a:1"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-ended
	reg.Set(imagetest.Faults{})
	b.pull(t, reg.Host+"/a:1") // waits for the end of the cancelled pull
}
