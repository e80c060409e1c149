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
)

// diagnose finds out why an image could not be taken, when the error itself has
// no class: it looks at the manifest once more. Where that tells nothing, err
// stays what it was.
func (a attempt) diagnose(ctx context.Context, src *originSource, err error) error {
	b, mediaType, rerr := src.GetManifest(ctx, nil)
	if rerr != nil {
		return err
	}
	if _, why := a.judge(b, manifest.NormalizedMIMEType(mediaType)); why != nil {
		return why
	}
	return err
}

// judge says what is wrong with a manifest, if it is that. Of an index it
// returns what is for this platform.
func (a attempt) judge(b []byte, mediaType string) (instance *digest.Digest, err error) {
	switch {
	case mediaType == manifest.DockerV2Schema1MediaType, mediaType == manifest.DockerV2Schema1SignedMediaType:
		// What a server sends of no known type is taken for this one.
		var schema1 struct {
			FSLayers []json.RawMessage `json:"fsLayers"`
		}
		if err := json.Unmarshal(b, &schema1); err != nil || len(schema1.FSLayers) == 0 {
			return nil, fmt.Errorf("what %s stands for is no manifest: %w", a.name, errdefs.ErrInvalidArgument)
		}
		return nil, fmt.Errorf("image %s has a manifest of schema 1, which nothing makes any more: push it anew: %w", a.name, errdefs.ErrNotImplemented)
	case manifest.MIMETypeIsMultiImage(mediaType):
		list, err := manifest.ListFromBlob(b, mediaType)
		if err != nil {
			return nil, fmt.Errorf("index of %s: %w: %w", a.name, err, errdefs.ErrInvalidArgument)
		}
		chosen, err := list.ChooseInstance(a.sys)
		if err != nil {
			return nil, fmt.Errorf("image %s is not there for %s/%s, only for %s: %w", a.name, runtime.GOOS, runtime.GOARCH, platforms(b), errdefs.ErrNotFound)
		}
		return &chosen, nil
	}
	m, err := manifest.FromBlob(b, mediaType)
	if err != nil {
		return nil, fmt.Errorf("manifest of %s, of media type %q: %w: %w", a.name, mediaType, err, errdefs.ErrInvalidArgument)
	}
	digests := []manifest.LayerInfo{{BlobInfo: m.ConfigInfo()}}
	for _, info := range append(digests, m.LayerInfos()...) {
		if err := info.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("manifest of %s: digest %.80q: %w: %w", a.name, info.Digest, err, errdefs.ErrInvalidArgument)
		}
	}
	return nil, nil
}

// maxPlatforms bounds the platforms that an error lists.
const maxPlatforms = 10

// platforms are those of an index of either kind, as their fields are the same.
func platforms(b []byte) string {
	var index ispec.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return "(unreadable)"
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
		return "no platform at all"
	}
	return strings.Join(all, ", ")
}
