package system

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// payload returns the signed content of both kinds of signatures.
func payload(t *testing.T, kind, identity, digest string) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"critical": map[string]any{
			"type":     kind,
			"image":    map[string]string{"docker-manifest-digest": digest},
			"identity": map[string]string{"docker-reference": identity},
		},
		"optional": map[string]any{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// gpgKey returns a key, and its public half in the format of a policy.
func gpgKey(t *testing.T) (key *openpgp.Entity, public []byte) {
	t.Helper()
	key, err := openpgp.NewEntity("Signer", "", "signer@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return key, b.Bytes()
}

// simpleSignature returns a simple signing signature as `skopeo standalone-sign` makes it.
func simpleSignature(t *testing.T, key *openpgp.Entity, identity, digest string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := openpgp.Sign(&b, key, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(payload(t, "atomic container signature", identity, digest)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// lookaside is a server for the signatures of a registry.
type lookaside struct {
	url string

	mu    sync.Mutex // guards the fields below
	files map[string][]byte
	down  bool
}

func newLookaside(t *testing.T) *lookaside {
	t.Helper()
	l := &lookaside{files: make(map[string][]byte)}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	l.url = server.URL
	return l
}

func (l *lookaside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.files[r.URL.Path]
	switch {
	case l.down:
		http.Error(w, "down", http.StatusServiceUnavailable)
	case !ok:
		http.NotFound(w, r)
	default:
		_, _ = w.Write(b)
	}
}

// put stores the signature of a manifest.
func (l *lookaside) put(repo, digest string, signature []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files[fmt.Sprintf("/%s@%s/signature-1", repo, strings.Replace(digest, ":", "=", 1))] = signature
}

func (l *lookaside) setDown(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
}

// sigstoreKey returns a key as cosign makes it, and its public key.
func sigstoreKey(t *testing.T) (key *ecdsa.PrivateKey, public []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// attach stores a signature like cosign: as an image whose tag contains the digest, with
// the payload as its layer.
func attach(t *testing.T, reg *testRegistry, repo string, key *ecdsa.PrivateKey, identity, digest string) {
	t.Helper()
	body := payload(t, "cosign container image signature", identity, digest)
	sum := sha256.Sum256(body)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.Append(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), mutate.Addendum{
		Layer:       static.NewLayer(body, "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
	})
	if err != nil {
		t.Fatal(err)
	}
	reg.push(t, repo+":"+strings.Replace(digest, ":", "-", 1)+".sig", img)
}
