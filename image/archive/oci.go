package archive

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Files of the image layout of OCI.
const (
	layoutFile = ispec.ImageLayoutFile
	indexFile  = ispec.ImageIndexFile
	blobsDir   = ispec.ImageBlobsDir
)

const (
	// containerdName is the annotation with the full name of an image that docker and containerd write.
	containerdName = "io.containerd.image.name"
	// dockerReferenceType is the annotation of manifests that are no images but belong to an image.
	dockerReferenceType = "vnd.docker.reference.type"
)

// readOCI reads the index of an image layout.
func (a *Archive) readOCI(platform string) error {
	blobs, err := a.ociBlobs()
	if err != nil {
		return err
	}
	var layout ispec.ImageLayout
	if err := a.readJSON(layoutFile, &layout); err != nil {
		return err
	}
	if v := layout.Version; !strings.HasPrefix(v, "1.") {
		return fmt.Errorf("%s has version %.32q, want 1.x: %w", layoutFile, v, errdefs.ErrNotImplemented)
	}
	var index ispec.Index
	if err := a.readJSON(indexFile, &index); err != nil {
		return err
	}
	byDigest := make(map[digest.Digest]*Image)
	for _, d := range forPlatform(index.Manifests, platform) {
		if err := d.Digest.Validate(); err != nil {
			return fmt.Errorf("%s has the digest %.100q: %w: %w", indexFile, d.Digest, err, errdefs.ErrInvalidArgument)
		}
		img := byDigest[d.Digest]
		if img == nil {
			img = &Image{Digest: d.Digest, archive: a, blobs: blobs}
			byDigest[d.Digest] = img
			a.Images = append(a.Images, img)
		}
		if name := ociName(d.Annotations); name != "" {
			img.Names = append(img.Names, name)
		}
	}
	return nil
}

// readJSON reads a JSON file of the archive, which must be a regular file.
func (a *Archive) readJSON(name string, v any) error {
	f, ok := a.files[name]
	if !ok || f.link != "" {
		return fmt.Errorf("archive has no regular file %s: %w", name, errdefs.ErrInvalidArgument)
	}
	b, err := a.readDocument(name, f)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("parse %s: %w: %w", name, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// ociBlobs returns the blobs of an image layout. It refuses links, and files that an image layout does not
// have. The exceptions are the files that `docker save` adds for older readers.
func (a *Archive) ociBlobs() (map[digest.Digest]content, error) {
	blobs := make(map[digest.Digest]content, len(a.files))
	for name, f := range a.files {
		if f.link != "" {
			return nil, fmt.Errorf("entry %q is a link, which an image layout cannot have: %w", name, errdefs.ErrInvalidArgument)
		}
		switch name {
		case layoutFile, indexFile, dockerManifestFile, dockerRepositoriesFile:
			continue
		}
		d, ok := blobDigest(name)
		if !ok {
			return nil, fmt.Errorf("entry %q is no file of an image layout: %w", name, errdefs.ErrInvalidArgument)
		}
		blobs[d] = content{section: f}
	}
	return blobs, nil
}

// blobDigest returns the digest of the blob with a path, such as "blobs/sha256/…".
func blobDigest(name string) (digest.Digest, bool) {
	dir, hex := path.Split(name)
	parent, algorithm := path.Split(path.Clean(dir))
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	return d, parent == blobsDir+"/" && d.Validate() == nil
}

// forPlatform returns the descriptors of images for a platform, or of all images if none is for the
// platform. A descriptor without a platform is an image, or an index from which the platform is chosen
// later.
func forPlatform(all []ispec.Descriptor, platform string) []ispec.Descriptor {
	var images, matching []ispec.Descriptor
	for _, d := range all {
		if d.Annotations[dockerReferenceType] != "" {
			continue
		}
		images = append(images, d)
		if p := d.Platform; p == nil || p.OS+"/"+p.Architecture == platform {
			matching = append(matching, d)
		}
	}
	if len(matching) == 0 {
		return images
	}
	return matching
}

// ociName returns the name of an image from the annotations of its descriptor, or "". The annotation of
// OCI can have only a tag, which is no name without a repository.
func ociName(annotations map[string]string) string {
	if name := annotations[containerdName]; name != "" {
		return name
	}
	name := annotations[ispec.AnnotationRefName]
	if !strings.ContainsAny(name, ":/@") {
		return ""
	}
	return name
}
