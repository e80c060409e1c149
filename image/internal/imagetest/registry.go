// Package imagetest creates images in memory and serves them on loopback with a registry that can have faults.
package imagetest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// Registry is a registry in memory. Set changes its faults at any time.
type Registry struct {
	Host string // "127.0.0.1:port"

	mu        sync.Mutex
	manifests map[string]manifest // by "name:reference"
	blobs     map[digest.Digest][]byte
	faults    Faults
	requests  []string
	lastAuth  string // the last Authorization header
}

type manifest struct {
	mediaType string
	body      []byte
}

// Faults configures the faults and the authentication of a registry.
type Faults struct {
	// User and Password, if set, are required: with basic authentication, or by the token server if
	// Bearer is set.
	User, Password string
	Bearer         bool
	// Down makes the registry send 503 for all requests.
	Down bool
	// Blob is called with the digest and the content of a requested blob. If it returns true, it
	// has sent the response.
	Blob func(w http.ResponseWriter, r *http.Request, d digest.Digest, content []byte) bool
	// ManifestType, if set, is the media type of all manifests.
	ManifestType string
}

// NewRegistry starts a registry that is closed at the end of the test.
func NewRegistry(tb testing.TB) *Registry {
	tb.Helper()
	r := &Registry{manifests: make(map[string]manifest), blobs: make(map[digest.Digest][]byte)}
	srv := httptest.NewUnstartedServer(r)
	srv.Start()
	tb.Cleanup(srv.Close)
	r.Host = strings.TrimPrefix(srv.URL, "http://")
	return r
}

// DeadHost returns a loopback address without a listener.
func DeadHost(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Set replaces the faults.
func (r *Registry) Set(f Faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = f
}

// Push stores an image or index under name:tag and under its digests. It returns the SHA-256 digest.
func (r *Registry) Push(name, tag string, img Pushable) digest.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	mediaType, body, parts := img.push()
	for _, p := range append(parts, part{mediaType, body}) {
		for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
			d := algorithm.FromBytes(p.body)
			switch {
			case p.mediaType != "":
				r.manifests[name+":"+d.String()] = manifest(p)
			default:
				r.blobs[d] = p.body
			}
		}
	}
	r.manifests[name+":"+tag] = manifest{mediaType, body}
	return digest.FromBytes(body)
}

// Requests returns the "METHOD path" of all requests since the last call.
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.requests
	r.requests = nil
	return all
}

// Authorization returns the last Authorization header that the registry received.
func (r *Registry) Authorization() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastAuth
}

// Blobs returns the number of requests for blobs with these digests. Without digests, it counts the
// requests for all blobs.
func Blobs(requests []string, digests ...digest.Digest) int {
	n := 0
	for _, req := range requests {
		_, d, ok := strings.Cut(req, "/blobs/")
		if ok && (len(digests) == 0 || slices.Contains(digests, digest.Digest(d))) {
			n++
		}
	}
	return n
}

func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, req.Method+" "+req.URL.Path)
	if a := req.Header.Get("Authorization"); a != "" {
		r.lastAuth = a
	}
	faults := r.faults
	r.mu.Unlock()
	switch {
	case faults.Down:
		http.Error(w, "down", http.StatusServiceUnavailable)
	case req.URL.Path == "/token":
		r.serveToken(w, req, faults)
	case !r.authorized(req, faults):
		r.challenge(w, faults)
	case req.URL.Path == "/v2/":
	case strings.Contains(req.URL.Path, "/manifests/"):
		r.serveManifest(w, req, faults)
	case strings.Contains(req.URL.Path, "/blobs/"):
		r.serveBlob(w, req, faults)
	default:
		http.NotFound(w, req)
	}
}

func (r *Registry) serveManifest(w http.ResponseWriter, req *http.Request, f Faults) {
	name, ref, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/manifests/")
	r.mu.Lock()
	m, ok := r.manifests[name+":"+ref]
	r.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		return
	}
	if f.ManifestType != "" {
		m.mediaType = f.ManifestType
	}
	w.Header().Set("Content-Type", m.mediaType)
	_, _ = w.Write(m.body)
}

func (r *Registry) serveBlob(w http.ResponseWriter, req *http.Request, faults Faults) {
	_, d, _ := strings.Cut(req.URL.Path, "/blobs/")
	r.mu.Lock()
	b, ok := r.blobs[digest.Digest(d)]
	r.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	if faults.Blob != nil && faults.Blob(w, req, digest.Digest(d), b) {
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	_, _ = w.Write(b)
}

// Token returns the token that the token server issues for a password.
func Token(user, password string) string {
	sum := sha256.Sum256([]byte(user + ":" + password))
	return hex.EncodeToString(sum[:])
}

func token(f Faults) string { return Token(f.User, f.Password) }

func (r *Registry) serveToken(w http.ResponseWriter, req *http.Request, f Faults) {
	user, password, _ := req.BasicAuth()
	if req.Method == http.MethodPost { // an identity token
		user, password = f.User, req.FormValue("refresh_token")
	}
	if user != f.User || password != f.Password {
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"token":%q,"access_token":%q,"expires_in":3600}`, token(f), token(f))
}

func (r *Registry) authorized(req *http.Request, f Faults) bool {
	if f.User == "" {
		return true
	}
	if f.Bearer {
		return req.Header.Get("Authorization") == "Bearer "+token(f)
	}
	user, password, ok := req.BasicAuth()
	return ok && user == f.User && password == f.Password
}

func (r *Registry) challenge(w http.ResponseWriter, f Faults) {
	if f.Bearer {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, r.Host))
	} else {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	}
	fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"fault of the test registry"}]}`, code)
}

// Truncate sends half of a blob and closes the connection.
func Truncate(w http.ResponseWriter, content []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	_, _ = w.Write(content[:len(content)/2])
	panic(http.ErrAbortHandler)
}

// Stall sends half of a blob and then waits until the client closes the connection.
func Stall(w http.ResponseWriter, r *http.Request, content []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	_, _ = w.Write(content[:len(content)/2])
	w.(http.Flusher).Flush()
	select {
	case <-r.Context().Done():
	case <-time.After(time.Minute):
	}
}
