package pull

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"
)

// diagnose looks for the cause of an error without a class in the manifest. If the manifest is
// acceptable or cannot be read, diagnose returns err.
func (a attempt) diagnose(ctx context.Context, src types.ImageSource, err error) error {
	b, mediaType, readErr := src.GetManifest(ctx, nil)
	if readErr != nil {
		return err
	}
	if _, cause := a.checkManifest(b, manifest.NormalizedMIMEType(mediaType)); cause != nil {
		return cause
	}
	return err
}

// checkManifest returns an error if a manifest is not acceptable. If the manifest is an index,
// checkManifest returns the digest of the manifest for this platform.
func (a attempt) checkManifest(b []byte, mediaType string) (instance *digest.Digest, err error) {
	switch {
	case mediaType == manifest.DockerV2Schema1MediaType, mediaType == manifest.DockerV2Schema1SignedMediaType:
		// containers/image takes content without a known media type for schema 1.
		var schema1 struct {
			FSLayers []json.RawMessage `json:"fsLayers"`
		}
		if err := json.Unmarshal(b, &schema1); err != nil || len(schema1.FSLayers) == 0 {
			return nil, fmt.Errorf("content of %s is not a manifest: %w", a.label, errdefs.ErrInvalidArgument)
		}
		return nil, fmt.Errorf("image %s has a manifest of schema 1, which is not supported: push the image again: %w", a.label, errdefs.ErrNotImplemented)
	case manifest.MIMETypeIsMultiImage(mediaType):
		list, err := manifest.ListFromBlob(b, mediaType)
		if err != nil {
			return nil, fmt.Errorf("parse index of %s: %w: %w", a.label, err, errdefs.ErrInvalidArgument)
		}
		chosen, err := list.ChooseInstance(a.sys)
		if err != nil {
			return nil, fmt.Errorf("image %s has no manifest for %s/%s, only for %s: %w", a.label, runtime.GOOS, runtime.GOARCH, platforms(b), errdefs.ErrNotFound)
		}
		return &chosen, nil
	}
	m, err := manifest.FromBlob(b, mediaType)
	if err != nil {
		return nil, fmt.Errorf("parse manifest of %s with media type %q: %w: %w", a.label, mediaType, err, errdefs.ErrInvalidArgument)
	}
	digests := []manifest.LayerInfo{{BlobInfo: m.ConfigInfo()}}
	for _, info := range append(digests, m.LayerInfos()...) {
		if err := info.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("manifest of %s has invalid digest %.80q: %w: %w", a.label, info.Digest, err, errdefs.ErrInvalidArgument)
		}
	}
	return nil, nil
}

// maxPlatforms is the maximum number of platforms in an error.
const maxPlatforms = 10

// platforms lists the platforms of an OCI index or of a docker manifest list, which have the same
// fields.
func platforms(b []byte) string {
	var index ispec.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return "unknown platforms"
	}
	var all []string
	for _, m := range index.Manifests {
		if m.Platform == nil || m.Platform.OS == "unknown" { // an attestation
			continue
		}
		if len(all) == maxPlatforms {
			all = append(all, "…")
			break
		}
		all = append(all, fmt.Sprintf("%.20s/%.20s", m.Platform.OS, m.Platform.Architecture))
	}
	if len(all) == 0 {
		return "no platform"
	}
	return strings.Join(all, ", ")
}
