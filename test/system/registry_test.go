package system

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// testRegistry is a registry of one test. A handler in front of it can answer requests.
type testRegistry struct {
	host    string // 127.0.0.1:port
	handler http.Handler

	mu       sync.Mutex // guards the fields below
	front    func(w http.ResponseWriter, r *http.Request) (answered bool)
	requests []request
}

// request is a request to the registry with its credential.
type request struct{ method, path, authorization string }

// newRegistry starts a registry until the end of the test.
func newRegistry(t *testing.T) *testRegistry {
	t.Helper()
	return newRegistryAt(t, "127.0.0.1")
}

// newRegistryAt is newRegistry at another loopback address, which HTTP clients treat as
// another host.
func newRegistryAt(t *testing.T, ip string) *testRegistry {
	t.Helper()
	return startRegistry(t, ip, (*httptest.Server).Start)
}

func startRegistry(t *testing.T, ip string, start func(*httptest.Server)) *testRegistry {
	t.Helper()
	r := &testRegistry{handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	server := httptest.NewUnstartedServer(r)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if server.Listener, err = net.Listen("tcp", ip+":0"); err != nil {
		t.Fatal(err)
	}
	start(server)
	t.Cleanup(func() {
		server.CloseClientConnections() // the handler in front may be waiting for its client
		server.Close()
	})
	r.host = server.Listener.Addr().String()
	return r
}

func (r *testRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, request{req.Method, req.URL.Path, req.Header.Get("Authorization")})
	front := r.front
	r.mu.Unlock()
	if front == nil || !front(w, req) {
		r.handler.ServeHTTP(w, req)
	}
}

// set sets the handler in front of the registry, or removes it if h is nil.
func (r *testRegistry) set(front func(w http.ResponseWriter, req *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.front = front
}

// takeRequests returns the requests since the last call whose path contains text.
func (r *testRegistry) takeRequests(text string) []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []request
	for _, req := range r.requests {
		if strings.Contains(req.path, text) {
			all = append(all, req)
		}
	}
	r.requests = nil
	return all
}

// push stores an image or an index, without the handler in front, and returns its
// reference.
func (r *testRegistry) push(t *testing.T, repoTag string, what any) string {
	t.Helper()
	server := httptest.NewServer(r.handler)
	defer server.Close()
	ref, err := name.ParseReference(server.Listener.Addr().String()+"/"+repoTag, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	switch what := what.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, what)
	case v1.Image:
		err = remote.Write(ref, what)
	default:
		t.Fatalf("push %s: got a %T, want an image or an index", ref, what)
	}
	if err != nil {
		t.Fatalf("push %s: %v", repoTag, err)
	}
	return r.host + "/" + repoTag
}

// put stores a manifest without validation.
func (r *testRegistry) put(t *testing.T, repo, ref, mediaType string, body []byte) string {
	t.Helper()
	req := httptest.NewRequest(http.MethodPut, "/v2/"+repo+"/manifests/"+ref, bytes.NewReader(body))
	req.Header.Set("Content-Type", mediaType)
	answer := httptest.NewRecorder()
	r.handler.ServeHTTP(answer, req)
	if answer.Code != http.StatusCreated {
		t.Fatalf("put %s:%s: %s: %s", repo, ref, answer.Result().Status, answer.Body)
	}
	return r.host + "/" + repo + ":" + ref
}

// file is a file in a layer.
type file struct {
	tar.Header
	content string
}

func textFile(name, content string) file {
	return file{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content}
}

func directory(name string, uid int, mode int64) file {
	return file{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Uid: uid, Gid: uid, Mode: mode}}
}

func symlink(name, target string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

// busyboxLayers returns the layers of the busybox image.
func (n *node) busyboxLayers(t *testing.T) []v1.Layer {
	t.Helper()
	ref, err := name.ParseReference(suite.images+"/"+busybox, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatalf("get the image %s: %v", ref, err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatalf("layers of the image: %v", err)
	}
	return layers
}

func layerOf(t *testing.T, files ...file) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		f.Size = int64(len(f.content))
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// imageOf returns an OCI image for this machine.
func imageOf(t *testing.T, config v1.Config, layers ...v1.Layer) v1.Image {
	t.Helper()
	return imageFor(t, v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, config, layers...)
}

func imageFor(t *testing.T, platform v1.Platform, config v1.Config, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for i, l := range layers {
		var err error
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCILayer, History: v1.History{CreatedBy: fmt.Sprint("step ", i)}}); err != nil {
			t.Fatal(err)
		}
	}
	f, err := img.ConfigFile()
	if err != nil {
		t.Fatalf("config of the image: %v", err)
	}
	f = f.DeepCopy()
	f.OS, f.Architecture, f.Config = platform.OS, platform.Architecture, config
	if img, err = mutate.ConfigFile(img, f); err != nil {
		t.Fatal(err)
	}
	return img
}

// small returns an image with one file with the given content.
func small(t *testing.T, content string) v1.Image {
	t.Helper()
	return imageOf(t, v1.Config{Cmd: []string{"sh"}}, layerOf(t, textFile("file", content)))
}

func digestOf(t *testing.T, img interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatalf("digest of the image: %v", err)
	}
	return d.String()
}

// blobOf returns the digest of the top layer of an image in the registry.
func blobOf(t *testing.T, img v1.Image) string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatalf("layers of the image: %v", err)
	}
	return digestOf(t, layers[len(layers)-1])
}

// deadHost returns a loopback address on which nothing listens.
func deadHost(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// pullNode starts a daemon without a pod network for tests of pulls. settings are lines
// of the table [image].
func pullNode(t *testing.T, name string, settings ...string) *node {
	t.Helper()
	n := makeNode(name)
	n.settings(t, settings...)
	n.start(t)
	// The first short name creates a lock file, which remains.
	if _, err := n.ImageService.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: "short"}}}); err != nil {
		t.Fatal(err)
	}
	n.takeBaseline(t)
	return n
}

// settings writes a configuration drop-in before the daemon starts.
func (n *node) settings(t *testing.T, image ...string) {
	t.Helper()
	n.writeFile(t, "config.toml.d/50-image.toml", "[image]\n"+strings.Join(image, "\n")+"\n")
}

func (n *node) writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(n.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// trust lets the daemon use plain HTTP for the registries. The daemon reads
// registries.conf for each pull.
func (n *node) trust(t *testing.T, registries ...*testRegistry) {
	t.Helper()
	conf := n.Registries
	for _, r := range registries {
		conf += fmt.Sprintf("\n[[registry]]\nlocation = %q\ninsecure = true\n", r.host)
	}
	n.writeFile(t, "registries.conf", conf)
}

// copyManifest adds another tag to a manifest.
func copyManifest(t *testing.T, r *testRegistry, repo, from, to string) {
	t.Helper()
	answer := httptest.NewRecorder()
	r.handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/v2/"+repo+"/manifests/"+from, nil))
	if answer.Code != http.StatusOK {
		t.Fatalf("get %s:%s: %s", repo, from, answer.Result().Status)
	}
	r.put(t, repo, to, answer.Header().Get("Content-Type"), answer.Body.Bytes())
}

// blob returns a blob from the registry.
func (r *testRegistry) blob(req *http.Request) []byte {
	answer := httptest.NewRecorder()
	r.handler.ServeHTTP(answer, req)
	return answer.Body.Bytes()
}
