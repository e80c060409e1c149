package image

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/copy"
	dockerarchive "go.podman.io/image/v5/docker/archive"
	ociarchive "go.podman.io/image/v5/oci/archive"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// readWithLibrary reads an archive with the library that skopeo and podman use.
func readWithLibrary(tb testing.TB, format ArchiveFormat, data []byte, want Image) {
	tb.Helper()
	path := write(tb, filepath.Join(tb.TempDir(), "a.tar"), string(data))
	var ref types.ImageReference
	var err error
	if format == OCIArchive {
		ref, err = ociarchive.NewReference(path, want.RepoTags[0])
	} else {
		ref, err = dockerarchive.ParseReference(path + ":" + want.RepoTags[0])
	}
	if err != nil {
		tb.Fatal(err)
	}
	sys := &types.SystemContext{BigFilesTemporaryDir: tb.TempDir()}
	img, err := ref.NewImage(tb.Context(), sys)
	if err != nil {
		tb.Fatal(err)
	}
	config, err := img.ConfigBlob(tb.Context())
	if err != nil || digest.FromBytes(config) != want.ID {
		tb.Errorf("config: got %s, %v", digest.FromBytes(config), err)
	}
	equal(tb, "layers", len(img.LayerInfos()), len(want.Layers))
	src, err := ref.NewImageSource(tb.Context(), sys)
	if err != nil {
		tb.Fatal(err)
	}
	for i, info := range img.LayerInfos() {
		r, _, err := src.GetBlob(tb.Context(), info, nil)
		if err != nil {
			tb.Fatal(err)
		}
		d, err := digest.FromReader(r)
		if err != nil || d != want.Layers[i].DiffID {
			tb.Errorf("layer %d: got %s, %v", i, d, err)
		}
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	}
	if err := errors.Join(img.Close(), src.Close()); err != nil {
		tb.Error(err)
	}
}

// TestLoadFromLibrary loads archives that the library of podman and skopeo has written. Its docker-archives
// have links to the layers for older readers.
func TestLoadFromLibrary(t *testing.T) {
	b := newBed(t)
	img := imagetest.Image{Layers: oddLayers(t)}
	const name = "registry.test/odd:1"
	layers := imagetest.Tar(t, imagetest.OCIEntries(t, imagetest.Named{Names: []string{name}, Image: img})...)
	src, err := ociarchive.NewReference(write(t, filepath.Join(t.TempDir(), "a.tar"), string(layers)), name)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: []signature.PolicyRequirement{signature.NewPRInsecureAcceptAnything()}})
	if err != nil {
		t.Fatal(err)
	}
	sys := &types.SystemContext{BigFilesTemporaryDir: t.TempDir(), BlobInfoCacheDir: t.TempDir()}
	for format, parse := range map[string]func(string) (types.ImageReference, error){"docker": dockerarchive.ParseReference, "oci": ociarchive.ParseReference} {
		path := filepath.Join(t.TempDir(), format)
		dest, err := parse(path + ":" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := copy.Image(t.Context(), policy, dest, src, &copy.Options{SourceCtx: sys, DestinationCtx: sys}); err != nil {
			t.Fatal(err)
		}
		data := []byte(read(t, path))
		if links := bytes.Contains(data, []byte("/layer.tar")); links != (format == "docker") {
			t.Errorf("%s: archive has links: %t", format, links)
		}
		loaded := b.load(t, data, "")[0]
		equalList(t, "names from "+format, loaded.Names, []string{name})
		root, container := b.mount(t, loaded.Image)
		equal(t, "file from "+format, read(t, root, "implied/upper"), "u")
		if err := errors.Join(b.UnmountRootFS(t.Context(), container), b.Remove(t.Context(), name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := policy.Destroy(); err != nil {
		t.Error(err)
	}
}
