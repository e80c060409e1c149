package imagetest

import (
	"archive/tar"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Named is an image of an archive with its names.
type Named struct {
	Names []string
	Image Pushable
}

// OCIEntries returns the entries of an archive in the image layout of OCI. The first two are oci-layout and index.json.
// The names are in the annotation that podman and skopeo write.
func OCIEntries(tb testing.TB, images ...Named) []Entry {
	tb.Helper()
	index := ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex}
	have := make(map[digest.Digest]bool)
	var blobs []Entry
	add := func(b []byte, algorithm digest.Algorithm) {
		if d := algorithm.FromBytes(b); !have[d] {
			have[d] = true
			blobs = append(blobs, File("blobs/"+algorithm.String()+"/"+d.Encoded(), string(b)))
		}
	}
	for _, n := range images {
		algorithm := digest.Canonical
		if i, ok := n.Image.(Image); ok {
			algorithm = i.algorithm()
		}
		mediaType, body, parts := n.Image.push()
		for _, p := range parts {
			add(p.body, algorithm)
		}
		add(body, digest.Canonical)
		d := descriptor(mediaType, body)
		for _, name := range n.Names {
			d.Annotations = map[string]string{ispec.AnnotationRefName: name}
			index.Manifests = append(index.Manifests, d)
		}
		if len(n.Names) == 0 {
			index.Manifests = append(index.Manifests, d)
		}
	}
	return append([]Entry{File("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), File("index.json", string(marshal(index)))}, blobs...)
}

// DockerEntries returns the entries of an archive as older versions of docker write it: each layer is in a directory,
// and a layer that an earlier image has is a symbolic link. The last entry is manifest.json.
func DockerEntries(tb testing.TB, images ...Named) []Entry {
	tb.Helper()
	type item struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var list []item
	var entries []Entry
	paths := make(map[digest.Digest]string)
	for n, named := range images {
		img, ok := named.Image.(Image)
		if !ok {
			tb.Fatal("a docker-archive has no indexes")
		}
		it := item{Config: img.ID().Encoded() + ".json", RepoTags: named.Names}
		entries = append(entries, File(it.Config, string(img.config())))
		for i, l := range img.Layers {
			dir := fmt.Sprintf("image%d-layer%d", n, i)
			entries = append(entries, Dir(dir), File(dir+"/VERSION", "1.0"))
			it.Layers = append(it.Layers, dir+"/layer.tar")
			if first, ok := paths[l.Digest()]; ok {
				entries = append(entries, Symlink(dir+"/layer.tar", "../"+first))
				continue
			}
			paths[l.Digest()] = dir + "/layer.tar"
			entries = append(entries, File(dir+"/layer.tar", string(l.Blob)))
		}
		list = append(list, it)
	}
	return append(entries, File("repositories", "{}"), File("manifest.json", string(marshal(list))))
}

// Device returns a device node. The type is tar.TypeChar or tar.TypeBlock.
func Device(name string, typ byte, major, minor int64) Entry {
	return Entry{Header: tar.Header{Typeflag: typ, Name: name, Mode: 0o600, Devmajor: major, Devminor: minor, ModTime: Time}}
}
