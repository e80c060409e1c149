// Package image owns references, pulls, the layer store on overlay, and the
// root file systems that are mounted from it. It knows nothing of pods,
// containers or gRPC.
package image

import (
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/criserver/criserver/image/pull"
)

// ID is an image's identity: the digest of its config, as in "sha256:…". It is
// the same in every RPC, whatever registry or tag the image came by.
type ID = digest.Digest

// Image is an immutable snapshot of what the store holds of an image.
type Image struct {
	ID          ID
	RepoTags    []string // "registry/name:tag", sorted
	RepoDigests []string // "registry/name@sha256:…", sorted
	// Size is the bytes that the image's unpacked layers take on disk, shared
	// or not, plus its config and manifest.
	Size      uint64
	Pinned    bool
	PulledAt  time.Time
	Manifest  digest.Digest // of the image manifest, not of an index
	MediaType string        // of the manifest
	// Annotations are those of the manifest.
	Annotations map[string]string
	Layers      []Layer // lowest first
	Config      ispec.Image
	RawConfig   []byte
}

// Layer is one layer of an image, lowest first.
type Layer struct {
	DiffID  digest.Digest // of the uncompressed tar
	Digest  digest.Digest // of the blob as it was pulled
	ChainID digest.Digest
	Size    uint64 // bytes on disk, unpacked
}

// Auth is the credential of one pull. At most one form is set: Username and
// Password, Encoded ("base64 of user:password"), IdentityToken, RegistryToken.
type Auth struct {
	Username, Password string
	Encoded            string
	ServerAddress      string
	IdentityToken      string
	RegistryToken      string
}

// PullRequest asks for one image.
type PullRequest struct {
	Ref  string
	Auth *Auth // nil: the auth files decide
	// Handler is the runtime handler that the image is pulled for, or "".
	Handler string
	// Namespace is the pod's that the image is pulled for, or "". It may have a
	// signature policy of its own.
	Namespace string
}

// PullProgress is how far a running pull has come.
type PullProgress = pull.Progress

// FSUsage is what the image store takes of its file system.
type FSUsage struct {
	Mountpoint string
	Time       time.Time
	Bytes      uint64
	Inodes     uint64
}

// RootFS is the mounted root file system of one container.
type RootFS struct {
	ImageID ID
	Path    string // mount point
	Upper   string // the writable layer
}

// Errors that the kubelet knows by the first word of their text. They come
// beside a class of errdefs, ErrUnavailable and ErrPermissionDenied.
var (
	ErrRegistryUnavailable       = pull.ErrRegistryUnavailable
	ErrSignatureValidationFailed = pull.ErrSignatureValidationFailed
)
