package images

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Files of a directory that `skopeo copy` to dir: and `podman save --format docker-dir` write. The other files are the
// blobs, whose names are their digests in hexadecimal digits without the algorithm SHA-256, the manifests of the
// platforms of an image with the suffix, and signatures.
const (
	skopeoManifest       = "manifest.json"
	skopeoVersion        = "version"
	skopeoManifestSuffix = ".manifest.json"
)

// maxManifest is the maximum size of a manifest in bytes, as in the daemon.
const maxManifest = 4 << 20

// isSkopeoDirectory reports whether a directory has the files of skopeo, and no image layout of OCI.
func isSkopeoDirectory(dir fs.FS) bool {
	exists := func(name string) bool { _, err := fs.Stat(dir, name); return err == nil }
	return exists(skopeoManifest) && exists(skopeoVersion) && !exists(ispec.ImageLayoutFile)
}

// listSkopeoDirectory returns the files of an image layout with the only image of a directory of skopeo. The image has
// no name. Signatures are not among the files, because a load does not use them.
func listSkopeoDirectory(dir fs.FS) ([]tarFile, error) {
	manifest, err := skopeoDescriptor(dir)
	if err != nil {
		return nil, err
	}
	index, err := json.Marshal(ispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{manifest},
	})
	if err != nil {
		return nil, err
	}
	layout, err := json.Marshal(ispec.ImageLayout{Version: ispec.ImageLayoutVersion})
	if err != nil {
		return nil, err
	}
	files := []tarFile{
		{name: ispec.ImageLayoutFile, content: layout, size: int64(len(layout))},
		{name: ispec.ImageIndexFile, content: index, size: int64(len(index))},
		{name: layoutBlob(manifest.Digest), source: skopeoManifest, size: manifest.Size},
	}
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.SHA256, strings.TrimSuffix(e.Name(), skopeoManifestSuffix))
		if d.Validate() != nil || d == manifest.Digest {
			continue
		}
		f, err := newTarFile(dir, layoutBlob(d), e.Name())
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// layoutBlob returns the path of a blob in an image layout.
func layoutBlob(d digest.Digest) string {
	return strings.Join([]string{ispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()}, "/")
}

// skopeoDescriptor returns the descriptor of the manifest of a directory of skopeo.
func skopeoDescriptor(dir fs.FS) (ispec.Descriptor, error) {
	f, err := newTarFile(dir, skopeoManifest, skopeoManifest)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	if f.size > maxManifest {
		return ispec.Descriptor{}, fmt.Errorf("%s has %d bytes, at most %d are allowed", skopeoManifest, f.size, maxManifest)
	}
	b, err := fs.ReadFile(dir, skopeoManifest)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	var m struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return ispec.Descriptor{}, fmt.Errorf("parse %s: %w", skopeoManifest, err)
	}
	if m.MediaType == "" { // optional in a manifest of OCI
		m.MediaType = ispec.MediaTypeImageManifest
	}
	return ispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}, nil
}
