package system

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/criserver/criserver/test/harness"
)

// mirror is an entry of registries.conf.
type mirror struct{ location, more string }

func mirrorAt(r *testRegistry) mirror { return mirror{location: r.host} }

// mirrored returns a registries.conf in which registry.example is at origin and has the
// mirrors.
func (n *node) mirrored(t *testing.T, origin string, mirrors ...mirror) {
	t.Helper()
	conf := n.Registries + fmt.Sprintf("\n[[registry]]\nprefix = \"registry.example\"\nlocation = %q\ninsecure = true\n", origin)
	for _, m := range mirrors {
		conf += fmt.Sprintf("[[registry.mirror]]\nlocation = %q\ninsecure = true\n%s\n", m.location, m.more)
	}
	n.writeFile(t, "registries.conf", conf)
}

// hang returns a handler that does not answer some of the requests until the client
// disconnects.
func hang(path string, begin []byte) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, path) {
			return false
		}
		if begin != nil {
			w.Header().Set("Content-Length", "1000000")
			_, _ = w.Write(begin)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
		return true
	}
}

func fail(path string, code int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, path) {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprint(w, `{"errors":[{"code":"UNKNOWN","message":"not today"}]}`)
		return true
	}
}

// TestMirrors checks that after any failure of a mirror the daemon tries the next mirror,
// and the registry at the end.
func TestMirrors(t *testing.T) {
	n := pullNode(t, "mirrors", fmt.Sprintf("progress_window = %q", harness.Patience(800*time.Millisecond)))
	origin, first, second := newRegistry(t), newRegistry(t), newRegistry(t)
	bad := small(t, "bad mirror's")
	for name, c := range map[string]struct {
		first  func(http.ResponseWriter, *http.Request) bool
		dead   bool // the address refuses connections
		absent bool // the first mirror does not have the image
	}{
		"connection refused":    {dead: true},
		"without the image":     {absent: true},
		"forbidden":             {first: fail("/manifests/", http.StatusForbidden)},
		"unauthorized":          {first: fail("/manifests/", http.StatusUnauthorized)},
		"broken":                {first: fail("/", http.StatusInternalServerError)},
		"hangs at once":         {first: hang("/", nil)},
		"hangs at the manifest": {first: hang("/manifests/", nil)},
		"hangs at a blob":       {first: hang("/blobs/", nil)},
		"hangs in a blob":       {first: hang("/blobs/", []byte("\x1f\x8b\x08"))},
		"without a blob":        {first: fail("/blobs/", http.StatusNotFound)},
		"broken blobs":          {first: fail("/blobs/", http.StatusBadGateway)},
		"other bytes for the blob": {first: func(w http.ResponseWriter, r *http.Request) bool {
			return strings.Contains(r.URL.Path, "/blobs/") && writes(w, "garbage")
		}},
		"no manifest": {first: func(w http.ResponseWriter, r *http.Request) bool {
			return strings.Contains(r.URL.Path, "/manifests/") && writes(w, "garbage")
		}},
	} {
		repo := strings.NewReplacer(" ", "-", "'", "").Replace(name)
		t.Run(name, func(t *testing.T) {
			img := small(t, name)
			first.set(nil)
			if !c.absent {
				first.push(t, repo+":1", img)
			}
			second.push(t, repo+":1", img)
			first.set(c.first)
			firstHost := first.host
			if c.dead {
				firstHost = deadHost(t)
			}
			n.mirrored(t, origin.host, mirror{location: firstHost}, mirror{location: second.host})
			origin.takeRequests("")
			id := n.Pull(t, "registry.example/"+repo+":1")
			if got := n.imageStatus(t, id, false).GetImage().GetRepoTags(); len(got) != 1 || got[0] != "registry.example/"+repo+":1" {
				t.Errorf("tags: got %v, want those without the mirror", got)
			}
			if requests := origin.takeRequests(""); len(requests) > 0 {
				t.Errorf("requests to the origin: got %v, want none, because the second mirror has the image", requests)
			}
			// With this mirror alone, the pull uses the registry.
			origin.push(t, repo+":2", small(t, name+" of the origin"))
			first.set(nil)
			if !c.absent {
				first.push(t, repo+":2", bad)
			}
			first.set(c.first)
			n.mirrored(t, origin.host, mirror{location: firstHost})
			n.Pull(t, "registry.example/"+repo+":2")
		})
	}
	first.set(nil)
	t.Run("all fail", func(t *testing.T) {
		n.mirrored(t, deadHost(t), mirror{location: first.host}, mirror{location: deadHost(t)})
		err := n.pullFor(t, "", "registry.example/none:1")
		if !kubeletSees(err, crierrors.ErrRegistryUnavailable) || !strings.Contains(err.Error(), first.host+"/none:1: ") {
			t.Errorf("pull when all registries fail: got error %v, want ErrRegistryUnavailable with the first mirror", err)
		}
		n.mirrored(t, origin.host, mirror{location: deadHost(t)})
		if err := n.pullFor(t, "", "registry.example/none:1"); status.Code(err) != codes.NotFound {
			t.Errorf("pull when only the mirror fails: got error %v, want NotFound of the registry", err)
		}
	})
	entries, err := os.ReadDir(n.Dir + "/run")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "registries-") {
			t.Errorf("file in the directory at the end: got %s, want none", e.Name())
		}
	}
}

func writes(w http.ResponseWriter, text string) bool {
	_, _ = w.Write([]byte(text))
	return true
}

func TestMirrorsByDigestOrTagOnly(t *testing.T) {
	n := pullNode(t, "mirrorby")
	origin, m := newRegistry(t), newRegistry(t)
	img := small(t, "by digest")
	origin.push(t, "a:1", img)
	m.push(t, "a:1", img)
	byTag, byDigest := "registry.example/a:1", "registry.example/a@"+digestOf(t, img)
	for setting, want := range map[string][2]bool{ // whether the mirror receives requests for a tag, for a digest
		`pull-from-mirror = "digest-only"`: {false, true},
		`pull-from-mirror = "tag-only"`:    {true, false},
		`pull-from-mirror = "all"`:         {true, true},
		"":                                 {true, true},
	} {
		n.mirrored(t, origin.host, mirror{m.host, setting})
		for i, ref := range []string{byTag, byDigest} {
			m.takeRequests("")
			n.Pull(t, ref)
			if requested := len(m.takeRequests("")) > 0; requested != want[i] {
				t.Errorf("%s: %s: request to the mirror: got %t, want %t", setting, ref, requested, want[i])
			}
		}
	}
}

// TestRegistriesConf checks blocked registries, insecure registries and short names of
// registries.conf.
func TestRegistriesConf(t *testing.T) {
	n := pullNode(t, "regconf")
	reg, other := newRegistry(t), newRegistry(t)
	reg.push(t, "tool:latest", small(t, "tool"))
	reg.push(t, "deep/aliased:latest", small(t, "aliased"))
	other.push(t, "tool:latest", small(t, "another's tool"))
	conf := func(text string) {
		t.Helper()
		n.writeFile(t, "registries.conf", strings.NewReplacer("REG", reg.host, "OTHER", other.host, "DEAD", deadHost(t)).Replace(text))
	}
	const insecure = "[[registry]]\nlocation = \"REG\"\ninsecure = true\n[[registry]]\nlocation = \"OTHER\"\ninsecure = true\n"
	code := func(ref string, want codes.Code, says string) {
		t.Helper()
		err := n.pullFor(t, "", ref)
		if status.Code(err) != want || !strings.Contains(fmt.Sprint(err), says) {
			t.Errorf("%s: got %v, want %s and %q", ref, err, want, says)
		}
	}
	t.Run("blocked", func(t *testing.T) {
		conf("[[registry]]\nprefix = \"REG/blocked\"\nlocation = \"DEAD\"\nblocked = true\n[[registry]]\nprefix = \"*.blocked.example\"\nblocked = true\n" + insecure)
		code(reg.host+"/blocked/tool", codes.PermissionDenied, "is blocked in registries.conf")
		code("any.blocked.example/tool", codes.PermissionDenied, "is blocked in registries.conf")
		code(reg.host+"/tool", codes.OK, "")
	})
	t.Run("blocked mirror", func(t *testing.T) {
		conf("[[registry]]\nprefix = \"registry.example\"\nlocation = \"REG\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"OTHER\"\ninsecure = true\n[[registry]]\nlocation = \"OTHER\"\nblocked = true\n")
		other.takeRequests("")
		n.Pull(t, "registry.example/tool")
		if requests := other.takeRequests(""); len(requests) > 0 {
			t.Errorf("requests to a blocked mirror: got %v, want none", requests)
		}
	})
	t.Run("plain HTTP", func(t *testing.T) {
		conf("")
		reg.takeRequests("")
		if err := n.pullFor(t, "", reg.host+"/tool"); !kubeletSees(err, crierrors.ErrRegistryUnavailable) {
			t.Errorf("pull without TLS: got error %v, want ErrRegistryUnavailable", err)
		}
		if requests := reg.takeRequests(""); len(requests) > 0 {
			t.Errorf("requests over plain HTTP without insecure = true: got %v, want none", requests)
		}
	})
	t.Run("TLS", func(t *testing.T) {
		secure := startRegistry(t, "127.0.0.1", (*httptest.Server).StartTLS)
		secure.push(t, "tool:latest", small(t, "secure"))
		conf("")
		if err := n.pullFor(t, "", secure.host+"/tool"); !kubeletSees(err, crierrors.ErrRegistryUnavailable) || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("registry with an unknown certificate: got error %v, want ErrRegistryUnavailable with the certificate", err)
		}
		if requests := secure.takeRequests(""); len(requests) > 0 {
			t.Errorf("requests to a registry with an unknown certificate: got %v, want none", requests)
		}
		n.trust(t, secure)
		n.Pull(t, secure.host+"/tool")
	})
	t.Run("short names", func(t *testing.T) {
		conf("unqualified-search-registries = [\"DEAD\", \"REG\", \"OTHER\"]\n[aliases]\n\"aliased\" = \"REG/deep/aliased\"\n" + insecure)
		n.Pull(t, "tool")
		if got := n.imageStatus(t, "tool", false).GetImage().GetRepoTags(); !slices.Contains(got, reg.host+"/tool:latest") {
			t.Errorf("first registry with the image: got %v, want %s/tool:latest", got, reg.host)
		}
		n.Pull(t, "aliased")
		if got := n.imageStatus(t, "aliased:latest", false).GetImage().GetRepoTags(); len(got) != 1 || got[0] != reg.host+"/deep/aliased:latest" {
			t.Errorf("alias: got %v, want %s/deep/aliased:latest", got, reg.host)
		}
		code("absent", codes.Unknown, "RegistryUnavailable") // not all registries answered
		conf("unqualified-search-registries = [\"REG\", \"OTHER\"]\nshort-name-mode = \"enforcing\"\n[aliases]\n\"aliased\" = \"REG/deep/aliased\"\n" + insecure)
		code("tool", codes.InvalidArgument, "use the full name")
		code("aliased", codes.OK, "")
		conf("unqualified-search-registries = [\"REG\"]\nshort-name-mode = \"enforcing\"\n" + insecure)
		code("tool", codes.OK, "")
		code("absent", codes.NotFound, "")
	})
	t.Run("no sound file", func(t *testing.T) {
		conf("[[registry")
		code(reg.host+"/tool", codes.FailedPrecondition, "registries.conf")
		conf("[[registry]]\nlocation = \"REG/\"\nmirror-by-digest-only = 5\n")
		code(reg.host+"/tool", codes.FailedPrecondition, "registries.conf")
		// Images in the store are still listed.
		if _, err := n.ImageService.ListImages(t.Context(), &cri.ListImagesRequest{}); err != nil {
			t.Error(err)
		}
	})
	n.trust(t, reg)
}
