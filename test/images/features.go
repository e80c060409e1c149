package images

import (
	"fmt"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// featureCatalog returns the recipes of images of this project, each of which tests one property.
func featureCatalog() []recipe {
	return []recipe{
		{[]string{testRegistry + "layers:120"}, manyLayers(120)},
		{[]string{testRegistry + "whiteouts:1"}, whiteouts},
		{[]string{testRegistry + "owners:1"}, owners},
		{[]string{testRegistry + "volume:1"}, volume},
		{[]string{testRegistry + "config:1"}, busybox("", fullConfig())},
		{[]string{testRegistry + "zstd:1"}, zstd},
		{[]string{testRegistry + "docker:1"}, docker},
		{[]string{testRegistry + "multiarch:1"}, multiarch},
		{[]string{testRegistry + "state:1"}, state},
		{[]string{testRegistry + "checkpoint:1"}, checkpoint},
	}
}

// state builds an image with a program that has locks of files and timers.
func state(p *parts) (artifact, error) {
	l, err := newTree().dir("tmp", 0o1777).file("state", 0o755, p.state).layer()
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Entrypoint: []string{"/state"}}, l)
}

// checkpoint builds an image that contains a checkpoint, like "buildah add" and "buildah config". The layer has the
// unpacked files of the archive, and the manifest has the annotation of CRI-O.
func checkpoint(*parts) (artifact, error) {
	l, err := newTree().text("spec.dump", "{}").text("config.dump", "{}").text("checkpoint/inventory.img", "").layer()
	if err != nil {
		return nil, err
	}
	img, err := assemble(v1.Config{}, l)
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(img, map[string]string{"io.kubernetes.cri-o.annotations.checkpoint.name": "counter"}).(v1.Image), nil
}

// manyLayers builds an image with n layers. Each layer writes its number to /layer and adds one file to /layers.
func manyLayers(n int) func(*parts) (artifact, error) {
	return func(p *parts) (artifact, error) {
		layers := []v1.Layer{p.busybox}
		for i := 2; i <= n; i++ {
			l, err := newTree().
				text("layer", fmt.Sprintf("%d\n", i)).
				text(fmt.Sprintf("layers/%03d", i), fmt.Sprintf("%d\n", i)).
				layer()
			if err != nil {
				return nil, err
			}
			layers = append(layers, l)
		}
		return assemble(v1.Config{Cmd: []string{"sh"}}, layers...)
	}
}

// whiteouts builds an image whose second layer deletes a file, a directory, and the old content of a directory, and
// replaces a directory with a file and a file with a directory. The visible files below /data are exactly /data/kept,
// /data/opaque/new, /data/was-dir and /data/was-file/inside.
func whiteouts(p *parts) (artifact, error) {
	lower, err := newTree().
		text("data/kept", "kept\n").
		text("data/gone", "gone\n").
		text("data/gone-dir/inside", "gone\n").
		text("data/opaque/old", "gone\n").
		text("data/was-dir/inside", "gone\n").
		text("data/was-file", "gone\n").
		layer()
	if err != nil {
		return nil, err
	}
	upper, err := newTree().
		whiteout("data/gone").
		whiteout("data/gone-dir").
		opaque("data/opaque").
		text("data/opaque/new", "new\n").
		text("data/was-dir", "a file now\n").
		text("data/was-file/inside", "a directory now\n").
		layer()
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Cmd: []string{"sh"}}, p.busybox, lower, upper)
}

// volume builds an image for image volumes. It has a program, a set-user-id program, and links that
// would lead out of the image if the host followed them.
func volume(p *parts) (artifact, error) {
	l, err := newTree().
		text("data/file", "from the image\n").
		text("data/sub/deep", "deep\n").
		file("bin/hello", 0o755, []byte("#!/bin/sh\necho hello\n")).
		file("bin/nonewprivs", 0o4755, p.guest).
		symlink("inside", "/data/sub").
		symlink("out", "/../../etc/hostname").
		layer()
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{}, l)
}

// owners builds an image with files of several owners and modes, links, and a name with spaces and invalid UTF-8.
func owners(p *parts) (artifact, error) {
	l, err := newTree().
		dir("owners", 0o755).
		owned("owners/1000", 0o640, 1000, 1001, []byte("1000:1001\n")).
		owned("owners/setuid", 0o4755, 0, 0, []byte("setuid\n")).
		owned("owners/setgid", 0o2755, 0, 33, []byte("setgid\n")).
		dir("owners/sticky", 0o1777).
		hardlink("owners/hard", "owners/1000").
		symlink("owners/absolute", "/etc/passwd").
		symlink("owners/upward", "../../../../etc/passwd").
		symlink("owners/dangling", "nowhere").
		text("owners/a name with spaces", "spaces\n").
		text("owners/\xff\xfe", "no UTF-8\n").
		layer()
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Cmd: []string{"sh"}}, p.busybox, l)
}

// fullConfig returns an image configuration with every field that a runtime must apply or ignore.
func fullConfig() v1.Config {
	return v1.Config{
		User:         "www-data:1004",
		Env:          []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GREETING=hello world", "EMPTY="},
		Entrypoint:   []string{"/bin/sh", "-c", `echo "$GREETING from $(pwd) as $(id -u):$(id -g)"; echo "args: $*"; exec sleep 1000`, "entry"},
		Cmd:          []string{"one", "two words"},
		WorkingDir:   "/var/work",
		Volumes:      map[string]struct{}{"/data": {}, "/var/cache/app": {}},
		StopSignal:   "SIGINT",
		ExposedPorts: map[string]struct{}{"8080/tcp": {}, "53/udp": {}},
		Labels:       map[string]string{"org.opencontainers.image.title": "config", "empty": ""},
		Healthcheck:  &v1.HealthConfig{Test: []string{"CMD", "true"}},
	}
}

// zstd builds an image whose layers are compressed with Zstandard.
func zstd(p *parts) (artifact, error) {
	l, err := newTree().text("zstd", "zstd\n").
		layer(tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
	if err != nil {
		return nil, err
	}
	img, err := assemble(v1.Config{Cmd: []string{"sh"}}, p.busybox)
	if err != nil {
		return nil, err
	}
	return mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCILayerZStd})
}

// docker builds the busybox image in Docker's format, manifest schema 2.
func docker(p *parts) (artifact, error) {
	img, err := mutate.Append(empty.Image,
		mutate.Addendum{Layer: p.busybox, MediaType: types.DockerLayer},
		mutate.Addendum{Layer: p.tools, MediaType: types.DockerLayer})
	if err != nil {
		return nil, err
	}
	img = mutate.ConfigMediaType(mutate.MediaType(img, types.DockerManifestSchema2), types.DockerConfigJSON)
	return configured(img, v1.Config{Cmd: []string{"sh"}})
}

// multiarch builds an index with this machine's platform, other platforms, and an attestation as
// build tools make it.
func multiarch(p *parts) (artifact, error) {
	native, err := assemble(v1.Config{Cmd: []string{"sh"}}, p.busybox, p.tools)
	if err != nil {
		return nil, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, pf := range []v1.Platform{
		{OS: "linux", Architecture: "s390x"},
		{OS: "linux", Architecture: "arm", Variant: "v7"},
		{OS: "windows", Architecture: arch},
	} {
		other, err := otherPlatform(pf)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &pf}})
	}
	index = mutate.AppendManifests(index, mutate.IndexAddendum{
		Add:        native,
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
	})
	digest, err := native.Digest()
	if err != nil {
		return nil, err
	}
	attestation, err := otherPlatform(v1.Platform{OS: "unknown", Architecture: "unknown"})
	if err != nil {
		return nil, err
	}
	return mutate.AppendManifests(index, mutate.IndexAddendum{
		Add: attestation,
		Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{
				"vnd.docker.reference.type":   "attestation-manifest",
				"vnd.docker.reference.digest": digest.String(),
			},
		},
	}), nil
}

// otherPlatform builds an image that must never run. It contains only the name of its platform.
func otherPlatform(pf v1.Platform) (v1.Image, error) {
	l, err := newTree().text("platform", pf.String()+"\n").layer()
	if err != nil {
		return nil, err
	}
	img, err := assemble(v1.Config{}, l)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant = pf.OS, pf.Architecture, pf.Variant
	return mutate.ConfigFile(img, file)
}
