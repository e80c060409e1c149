// Package image owns the images: their names, pulls, records and layers, and the root file systems
// and volumes that are mounted from them. It must not deal with pods, with the state of containers,
// or with gRPC.
package image

import (
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/criserver/criserver/image/pull"
)

// ID is the id of an image: the digest of its config, such as "sha256:…". It is the same in every
// RPC and does not depend on registries and tags.
type ID = digest.Digest

// Image is an immutable snapshot of an image in the store.
type Image struct {
	ID          ID
	RepoTags    []string // "registry/name:tag", sorted
	RepoDigests []string // "registry/name@sha256:…", sorted
	// Size is the disk usage of all layers of the image, including shared layers, and of its config
	// and manifest, in bytes.
	Size      uint64
	Pinned    bool
	PulledAt  time.Time
	Manifest  digest.Digest // of the image manifest, not of an index
	MediaType string        // of the manifest
	// Annotations are the annotations of the manifest.
	Annotations map[string]string
	Layers      []Layer // lowest first
	Config      ispec.Image
	RawConfig   []byte
}

// Layer is one layer of an image.
type Layer struct {
	DiffID  digest.Digest // of the uncompressed tar
	Digest  digest.Digest // of the blob from which the layer was pulled
	ChainID digest.Digest
	Size    uint64 // disk usage in bytes
}

// Auth is the credential of one pull. Only one form is set: Username and Password, Encoded (base64
// of "user:password"), IdentityToken, or RegistryToken.
type Auth struct {
	Username, Password string
	Encoded            string
	ServerAddress      string
	IdentityToken      string
	RegistryToken      string
}

// PullRequest is a request for one image.
type PullRequest struct {
	Ref  string
	Auth *Auth // nil: the credential in the auth files is used
	// Handler is the runtime handler that the image is pulled for, or "".
	Handler string
	// Namespace is the namespace of the pod that the image is pulled for, or "". It can have its
	// own signature policy.
	Namespace string
	// Pod is the name of the pod that the image is pulled for, or "". The steps of the pull belong to
	// the timeline of the pod. Requests of several pods share one pull.
	Pod string `json:"-"`
}

// PullProgress is the progress of a running pull.
type PullProgress = pull.Progress

// FSUsage is the disk usage of images or of writable layers.
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

// The kubelet recognizes these errors by the first word of their text. The chain of such an error
// also has an error of errdefs: ErrUnavailable or ErrPermissionDenied.
var (
	ErrRegistryUnavailable       = pull.ErrRegistryUnavailable
	ErrSignatureValidationFailed = pull.ErrSignatureValidationFailed
)
