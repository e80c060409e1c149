package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// TestLoadPolicy checks the transports to which the signature policy applies.
func TestLoadPolicy(t *testing.T) {
	const (
		reject = `[{"type":"reject"}]`
		accept = `[{"type":"insecureAcceptAnything"}]`
	)
	img := imagetest.Named{Names: []string{"registry.test/a:1"}, Image: app(t, "b", "1")}
	archives := map[string][]byte{
		"oci-archive": imagetest.Tar(t, imagetest.OCIEntries(t, img)...), "docker-archive": imagetest.Tar(t, imagetest.DockerEntries(t, img)...),
	}
	for transport, data := range archives {
		for policy, accepted := range map[string]bool{
			`{"default":` + reject + `}`: false,
			`{"default":` + reject + `,"transports":{"` + transport + `":{"":` + accept + `}}}`: true,
			`{"default":` + accept + `,"transports":{"` + transport + `":{"":` + reject + `}}}`: false,
			// The name of an image in an archive selects no scope.
			`{"default":` + accept + `,"transports":{"docker":{"registry.test":` + reject + `}}}`: true,
			`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"AAAA"}]}`:              false,
		} {
			b := newBed(t)
			write(t, b.cfg.PolicyPath, policy)
			_, err := b.Load(t.Context(), LoadRequest{Archive: bytes.NewReader(data)})
			if accepted && err != nil || !accepted && (!errdefs.IsPermissionDenied(err) || !errors.Is(err, ErrSignatureValidationFailed)) {
				t.Errorf("%s with %s: got %v", transport, policy, err)
			}
			if got := len(b.List()); got > 0 != accepted {
				t.Errorf("%s with %s: got %d images", transport, policy, got)
			}
			if !accepted {
				equal(t, "layers", b.layerCount(t), 0)
			}
		}
	}
}

// change returns entries with the entry at a path replaced.
func change(entries []imagetest.Entry, name string, to ...imagetest.Entry) []imagetest.Entry {
	i := slices.IndexFunc(entries, func(e imagetest.Entry) bool { return e.Name == name })
	return slices.Concat(entries[:i], to, entries[i+1:])
}

// TestLoadHostile loads archives whose structure is valid and whose content is not. Package archive tests the
// structure.
func TestLoadHostile(t *testing.T) {
	img := imagetest.Image{Layers: []imagetest.Layer{imagetest.Plain(imagetest.Tar(t, imagetest.File("a", "a"))), imagetest.Files(t, imagetest.File("b", "b"))}}
	named := imagetest.Named{Names: []string{"a:1"}, Image: img}
	oci, docker := imagetest.OCIEntries(t, named), imagetest.DockerEntries(t, named)
	blob := func(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }
	gzipped, config := img.Layers[1], blob(img.ID())
	foreign := img
	foreign.Layers = slices.Clone(img.Layers)
	foreign.Layers[0].URLs = []string{"http://127.0.0.1:1/x"}
	wrongIDs := img
	wrongIDs.DiffIDs = []digest.Digest{img.Layers[1].DiffID, img.Layers[0].DiffID}
	escape := imagetest.Image{Layers: []imagetest.Layer{imagetest.Plain(imagetest.Tar(t, imagetest.File("../escape", "x")))}}
	bomb := imagetest.Image{Layers: []imagetest.Layer{imagetest.Files(t, imagetest.File("zeros", strings.Repeat("\x00", 4<<20)))}}
	isLarge := func(err error) bool { return errdefs.IsResourceExhausted(err) }
	for name, tc := range map[string]struct {
		entries []imagetest.Entry
		want    func(error) bool
	}{
		"oci: other content of a layer":      {change(oci, blob(gzipped.Digest()), imagetest.File(blob(gzipped.Digest()), string(imagetest.Files(t, imagetest.File("c", "c")).Blob))), errdefs.IsDataLoss},
		"oci: shorter layer":                 {change(oci, blob(gzipped.Digest()), imagetest.File(blob(gzipped.Digest()), string(gzipped.Blob[:20]))), errdefs.IsDataLoss},
		"oci: missing layer":                 {change(oci, blob(gzipped.Digest())), errdefs.IsNotFound},
		"oci: other content of the config":   {change(oci, config, imagetest.File(config, `{}`)), errdefs.IsDataLoss},
		"oci: missing config":                {change(oci, config), errdefs.IsNotFound},
		"oci: foreign layer":                 {imagetest.OCIEntries(t, imagetest.Named{Image: foreign}), errdefs.IsNotImplemented},
		"oci: wrong diff ids":                {imagetest.OCIEntries(t, imagetest.Named{Image: wrongIDs}), errdefs.IsInvalidArgument},
		"oci: layer leads out":               {imagetest.OCIEntries(t, imagetest.Named{Image: escape}), errdefs.IsInvalidArgument},
		"oci: layer too large":               {imagetest.OCIEntries(t, imagetest.Named{Image: bomb}), isLarge},
		"docker: wrong diff ids":             {imagetest.DockerEntries(t, imagetest.Named{Image: wrongIDs}), func(err error) bool { return errdefs.IsDataLoss(err) || errdefs.IsInvalidArgument(err) }},
		"docker: other content of a layer":   {change(docker, "image0-layer0/layer.tar", imagetest.File("image0-layer0/layer.tar", string(imagetest.Tar(t, imagetest.File("c", "c"))))), errdefs.IsDataLoss},
		"docker: layer leads out":            {imagetest.DockerEntries(t, imagetest.Named{Image: escape}), errdefs.IsInvalidArgument},
		"docker: link to a file of the host": {change(docker, "image0-layer0/layer.tar", imagetest.Symlink("image0-layer0/layer.tar", "/etc/passwd")), errdefs.IsInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.cfg.Limits.LayerBytes = 1 << 20
			b.restart(t)
			_, err := b.Load(t.Context(), LoadRequest{Archive: bytes.NewReader(imagetest.Tar(t, tc.entries...))})
			if err == nil || !tc.want(err) {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "RegistryUnavailable") {
				t.Errorf("got %v, which names a registry", err)
			}
			equal(t, "images", len(b.List()), 0)
			equal(t, "layers", b.layerCount(t), 0)
		})
	}
}

// TestLoadLimits checks the limits for the temporary archive.
func TestLoadLimits(t *testing.T) {
	b := newBed(t)
	b.cfg.MaxArchiveBytes = 1 << 20
	b.restart(t)
	data := imagetest.Tar(t, imagetest.DockerEntries(t, imagetest.Named{Image: app(t, "b", "1")})...)
	large := imagetest.Tar(t, imagetest.File("zeros", strings.Repeat("\x00", 4<<20)))
	for name, req := range map[string]LoadRequest{
		"announced size":    {Archive: failingReader{errors.New("must not be read")}, Size: 2 << 20},
		"size":              {Archive: bytes.NewReader(large)},
		"decompressed size": {Archive: bytes.NewReader(imagetest.Gzip(t, large).Blob)},
	} {
		if _, err := b.Load(t.Context(), req); !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "image.max_archive_bytes") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	b.cfg.SpoolReserve = 1 << 60
	b.restart(t)
	if _, err := b.Load(t.Context(), LoadRequest{Archive: bytes.NewReader(data)}); !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "free space") {
		t.Errorf("reserve: got %v", err)
	}
	broken := imagetest.Gzip(t, data).Blob
	if _, err := newBed(t).Load(t.Context(), LoadRequest{Archive: bytes.NewReader(broken[:len(broken)/2])}); !errdefs.IsDataLoss(err) {
		t.Errorf("truncated gzip: got %v", err)
	}
	if _, err := newBed(t).Load(t.Context(), LoadRequest{Archive: strings.NewReader("\x04\x22\x4d\x18\x64\x40")}); !errdefs.IsNotImplemented(err) {
		t.Errorf("lz4: got %v", err)
	}
	if _, err := newBed(t).Load(t.Context(), LoadRequest{Archive: bytes.NewReader(imagetest.Tar(t, imagetest.Entry{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "c"}}}))}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("tar without files: got %v", err)
	}
}
