package system

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

type requirement map[string]any

var anything = requirement{"type": "insecureAcceptAnything"}

// policy returns a policy.json with a default and with rules for scopes of registries.
func (n *node) policy(t *testing.T, name string, general requirement, scopes map[string]requirement) {
	t.Helper()
	docker := map[string][]requirement{}
	for scope, r := range scopes {
		docker[scope] = []requirement{r}
	}
	b, err := json.Marshal(map[string]any{"default": []requirement{general}, "transports": map[string]any{"docker": docker}})
	if err != nil {
		t.Fatal(err)
	}
	n.writeFile(t, name, string(b))
}

// pullFor pulls an image for a pod in a namespace, like the kubelet.
func (n *node) pullFor(t *testing.T, namespace, ref string) error {
	t.Helper()
	req := &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}}
	if namespace != "" {
		req.SandboxConfig = &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "p", Namespace: namespace, Uid: "u"}}
	}
	_, err := n.ImageService.PullImage(t.Context(), req)
	return err
}

// kubeletSees reports whether the kubelet recognizes the error of a failed pull. For
// errors with the code Unknown, the kubelet compares the beginning of the message.
func kubeletSees(err error, want error) bool {
	s := status.Convert(err)
	return s.Code() == codes.Unknown && strings.HasPrefix(s.Message(), want.Error())
}

// mustBeRefused checks that a pull is refused because of its signature, and that no layer
// is downloaded.
func (n *node) mustBeRefused(t *testing.T, reg *testRegistry, namespace, ref string) {
	t.Helper()
	reg.takeRequests("")
	err := n.pullFor(t, namespace, ref)
	if !kubeletSees(err, crierrors.ErrSignatureValidationFailed) {
		t.Errorf("pull %s: got error %v, want %v", ref, err, crierrors.ErrSignatureValidationFailed)
	}
	blobs := reg.takeRequests("/blobs/")
	if len(blobs) > 1 { // the blob of an attached signature
		t.Errorf("requests for blobs of a refused image: got %d, want at most 1", len(blobs))
	}
}

func TestSignaturePolicy(t *testing.T) {
	n := makeNode("policy")
	dir := filepath.Join(n.Dir, "registries.d")
	n.settings(t, fmt.Sprintf("registries_d = %q", dir), fmt.Sprintf("policy_dir = %q", filepath.Join(n.Dir, "policies")))
	n.start(t)
	reg, store := newRegistry(t), newLookaside(t)
	n.trust(t, reg)
	n.writeFile(t, "registries.d/test.yaml", fmt.Sprintf("docker:\n  %s:\n    lookaside: %s\n    use-sigstore-attachments: true\n", reg.host, store.url))

	gpg, gpgPublic := gpgKey(t)
	stranger, _ := gpgKey(t)
	cosign, cosignPublic := sigstoreKey(t)
	other, _ := sigstoreKey(t)
	signedBy := requirement{"type": "signedBy", "keyType": "GPGKeys", "keyPath": n.writeFile(t, "gpg.pub", string(gpgPublic))}
	sigstoreSigned := requirement{
		"type": "sigstoreSigned", "keyPath": n.writeFile(t, "cosign.pub", string(cosignPublic)), "signedIdentity": map[string]string{"type": "matchRepository"},
	}
	// Each image has different content, so that the store has none of its layers.
	image := func(repo string) (ref, digest string) {
		img := small(t, repo)
		return reg.push(t, repo+":1", img), digestOf(t, img)
	}
	for _, c := range []struct {
		repo string
		rule requirement
		sign func(ref, digest string)
		ok   bool
	}{
		{"accept", anything, nil, true},
		{"reject", requirement{"type": "reject"}, nil, false},
		{"gpg-good", signedBy, func(ref, digest string) { store.put("gpg-good", digest, simpleSignature(t, gpg, ref, digest)) }, true},
		{"gpg-stranger", signedBy, func(ref, digest string) {
			store.put("gpg-stranger", digest, simpleSignature(t, stranger, ref, digest))
		}, false},
		{"gpg-missing", signedBy, nil, false},
		{"gpg-of-another-name", signedBy, func(_, digest string) {
			store.put("gpg-of-another-name", digest, simpleSignature(t, gpg, reg.host+"/gpg-good:1", digest))
		}, false},
		{"gpg-of-another-digest", signedBy, func(ref, digest string) {
			store.put("gpg-of-another-digest", digest, simpleSignature(t, gpg, ref, "sha256:"+strings.Repeat("0", 64)))
		}, false},
		{"sigstore-good", sigstoreSigned, func(_, digest string) {
			attach(t, reg, "sigstore-good", cosign, reg.host+"/sigstore-good", digest)
		}, true},
		{"sigstore-stranger", sigstoreSigned, func(_, digest string) {
			attach(t, reg, "sigstore-stranger", other, reg.host+"/sigstore-stranger", digest)
		}, false},
		{"sigstore-missing", sigstoreSigned, nil, false},
		{"sigstore-of-another-name", sigstoreSigned, func(_, digest string) {
			attach(t, reg, "sigstore-of-another-name", cosign, reg.host+"/sigstore-good", digest)
		}, false},
		{"sigstore-of-another-digest", sigstoreSigned, func(_, digest string) {
			// The signature is stored for this digest and was made for another one.
			zero := "sha256:" + strings.Repeat("0", 64)
			attach(t, reg, "sigstore-of-another-digest", cosign, reg.host+"/sigstore-of-another-digest", zero)
			tag := strings.Replace(digest, ":", "-", 1) + ".sig"
			copyManifest(t, reg, "sigstore-of-another-digest", strings.Replace(zero, ":", "-", 1)+".sig", tag)
		}, false},
	} {
		t.Run(c.repo, func(t *testing.T) {
			ref, digest := image(c.repo)
			if c.sign != nil {
				c.sign(ref, digest)
			}
			n.policy(t, "policy.json", requirement{"type": "reject"}, map[string]requirement{reg.host + "/" + c.repo: c.rule})
			if !c.ok {
				n.mustBeRefused(t, reg, "", ref)
				return
			}
			if err := n.pullFor(t, "", ref); err != nil {
				t.Errorf("pull %s: %v", ref, err)
			}
			// The same rule applies to references by digest.
			if err := n.pullFor(t, "", reg.host+"/"+c.repo+"@"+digest); err != nil {
				t.Errorf("pull %s: %v", reg.host+"/"+c.repo+"@"+digest, err)
			}
		})
	}
	t.Run("scopes", func(t *testing.T) {
		ref, _ := image("deep/in/scope")
		n.policy(t, "policy.json", anything, map[string]requirement{reg.host: {"type": "reject"}, reg.host + "/deep": anything})
		if err := n.pullFor(t, "", ref); err != nil {
			t.Errorf("pull that the narrower scope allows: got error %v, want none", err)
		}
		n.policy(t, "policy.json", anything, map[string]requirement{reg.host + "/deep": anything, reg.host + "/deep/in/scope": {"type": "reject"}})
		n.mustBeRefused(t, reg, "", ref)
	})
	t.Run("store of signatures down", func(t *testing.T) {
		ref, digest := image("store-down")
		store.put("store-down", digest, simpleSignature(t, gpg, ref, digest))
		store.setDown(true)
		n.policy(t, "policy.json", signedBy, nil)
		if err := n.pullFor(t, "", ref); !kubeletSees(err, crierrors.ErrRegistryUnavailable) {
			t.Errorf("signature that cannot be downloaded: got error %v, want another one than for an invalid signature", err)
		}
		store.setDown(false)
		if err := n.pullFor(t, "", ref); err != nil {
			t.Errorf("pull %s: %v", ref, err)
		}
	})
	t.Run("garbage for a signature", func(t *testing.T) {
		ref, digest := image("garbage")
		n.policy(t, "policy.json", signedBy, nil)
		for _, garbage := range []string{"\x90garbage", "text", "", strings.Repeat("\xff", 64<<10)} {
			store.put("garbage", digest, []byte(garbage))
			n.mustBeRefused(t, reg, "", ref)
		}
	})
	t.Run("namespaces", func(t *testing.T) { namespacePolicies(t, n, reg) })
	t.Run("invalid policy", func(t *testing.T) {
		ref, _ := image("invalid-policy")
		for name, content := range map[string]string{"no JSON": "{", "no default": "{}", "unknown key": `{"default":[{"type":"reject"}],"x":1}`} {
			n.writeFile(t, "policy.json", content)
			if err := n.pullFor(t, "", ref); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("policy with %s: got error %v, want FailedPrecondition", name, err)
			}
		}
		if err := os.Remove(filepath.Join(n.Dir, "policy.json")); err != nil {
			t.Fatal(err)
		}
		if err := n.pullFor(t, "", ref); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("missing policy file: got error %v, want FailedPrecondition", err)
		}
	})
	n.policy(t, "policy.json", anything, nil)
}

// namespacePolicies tests a stricter policy for one namespace and a less strict policy
// for another one.
func namespacePolicies(t *testing.T, n *node, reg *testRegistry) {
	ref := reg.push(t, "tenant:1", small(t, "tenant"))
	n.policy(t, "policy.json", anything, nil)
	n.policy(t, "policies/strict.json", requirement{"type": "reject"}, nil)
	n.mustBeRefused(t, reg, "strict", ref)
	for _, namespace := range []string{"", "lax", strings.Repeat("n", 63)} {
		if err := n.pullFor(t, namespace, ref); err != nil {
			t.Errorf("pull for namespace %q: got error %v, want none", namespace, err)
		}
	}
	// The policy also applies to an image in the store.
	n.mustBeRefused(t, reg, "strict", ref)
	n.policy(t, "policy.json", requirement{"type": "reject"}, nil)
	n.policy(t, "policies/lax.json", anything, nil)
	if err := n.pullFor(t, "lax", ref); err != nil {
		t.Errorf("pull %s: %v", ref, err)
	}
	n.policy(t, "outside.json", anything, nil)
	for _, namespace := range []string{"../outside", "/", "a/b", "..", ".", "\x00", strings.Repeat("x", 64<<10)} {
		if err := n.pullFor(t, namespace, ref); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "namespace") {
			t.Errorf("pull for namespace %.20q: got error %.200v, want InvalidArgument", namespace, err)
		}
	}
	n.writeFile(t, "policies/broken.json", "{")
	if err := n.pullFor(t, "broken", ref); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("invalid policy: got error %v, want FailedPrecondition", err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(n.Dir, "policies"))); err != nil {
		t.Fatal(err)
	}
}
