package system

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// rawLayer is a layer with an arbitrary media type and content. diff is the diff ID that
// it claims.
type rawLayer struct {
	v1.Layer
	diff v1.Hash
}

func (l rawLayer) DiffID() (v1.Hash, error) { return l.diff, nil }

// withLayer returns an image with an additional top layer, which is not validated.
func withLayer(t *testing.T, blob []byte, mediaType types.MediaType, diff v1.Hash, urls ...string) v1.Image {
	t.Helper()
	img, err := mutate.Append(small(t, string(mediaType)+diff.Hex), mutate.Addendum{
		Layer: rawLayer{static.NewLayer(blob, mediaType), diff}, MediaType: mediaType, URLs: urls,
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// tarOf returns the tar of a layer and its digest.
func tarOf(t *testing.T, files ...file) ([]byte, v1.Hash) {
	t.Helper()
	r, err := layerOf(t, files...).Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	sum, _, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return b, sum
}

func manifestOf(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestInvalidImageContent checks that invalid images are refused with the reason, and
// that nothing remains of them.
func TestInvalidImageContent(t *testing.T) {
	n := pullNode(t, "content", "max_layers = 20")
	reg := newRegistry(t)
	n.trust(t, reg)
	tarball, diff := tarOf(t, textFile("f", "content"))
	zero, err := v1.NewHash("sha256:" + strings.Repeat("0", 64))
	if err != nil {
		t.Fatal(err)
	}
	many := make([]v1.Layer, 21)
	for i := range many {
		many[i] = layerOf(t, textFile(fmt.Sprint(i), ""))
	}
	index := func(platforms ...v1.Platform) v1.ImageIndex {
		x := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		for _, p := range platforms {
			x = mutate.AppendManifests(x, mutate.IndexAddendum{
				Add: imageFor(t, p, v1.Config{}, layerOf(t, textFile("f", p.Architecture))), Descriptor: v1.Descriptor{Platform: &p},
			})
		}
		return x
	}
	artifact := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.cncf.helm.config.v1+json")
	artifact, err = mutate.Append(artifact, mutate.Addendum{Layer: static.NewLayer([]byte("chart"), "application/vnd.cncf.helm.chart.content.v1.tar+gzip")})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		what any
		code codes.Code
		says string
	}{
		"encrypted":          {withLayer(t, tarball, "application/vnd.oci.image.layer.v1.tar+encrypted", diff), codes.Unimplemented, "is encrypted"},
		"encrypted and gzip": {withLayer(t, tarball, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", diff), codes.Unimplemented, "is encrypted"},
		"foreign":            {withLayer(t, tarball, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", diff, "http://"+reg.host+"/secret"), codes.Unimplemented, "is a foreign layer"},
		"nondistributable":   {withLayer(t, tarball, "application/vnd.oci.image.layer.nondistributable.v1.tar", diff), codes.Unimplemented, "is a foreign layer"},
		"elsewhere":          {withLayer(t, tarball, types.OCIUncompressedLayer, diff, "http://"+reg.host+"/secret"), codes.Unimplemented, "is a foreign layer"},
		"unknown media type": {withLayer(t, tarball, "application/vnd.example.layer", diff), codes.InvalidArgument, `unknown media type "application/vnd.example.layer"`},
		"xz":                 {withLayer(t, []byte("\xfd7zXZ\x00rest"), types.OCILayer, diff), codes.Unimplemented, "bzip2 or xz"},
		"wrong diff id":      {withLayer(t, tarball, types.OCIUncompressedLayer, zero), codes.InvalidArgument, "and config has"},
		"no tar":             {withLayer(t, []byte(strings.Repeat("no tar", 200)), types.OCIUncompressedLayer, diff), codes.InvalidArgument, "unpack layer"},
		"escape":             {imageOf(t, v1.Config{}, layerOf(t, textFile("../../../../escaped", "x"))), codes.InvalidArgument, `layer has the name`},
		"too many layers":    {imageOf(t, v1.Config{}, many...), codes.InvalidArgument, "more than 20 layers"},
		"other platforms":    {index(v1.Platform{OS: "linux", Architecture: "s390x"}, v1.Platform{OS: "windows", Architecture: runtime.GOARCH}), codes.NotFound, runtime.GOARCH},
		"empty index":        {index(), codes.NotFound, runtime.GOARCH},
		"other system":       {imageFor(t, v1.Platform{OS: "windows", Architecture: runtime.GOARCH}, v1.Config{}, layerOf(t, textFile("f", "w"))), codes.NotFound, "windows"},
		"helm chart":         {artifact, codes.Unimplemented, "artifact"},
	} {
		t.Run(name, func(t *testing.T) {
			mustLeaveNothing(t, n, reg, reg.push(t, "c-"+strings.ReplaceAll(name, " ", "-")+":1", c.what), c.code, c.says)
		})
	}
	_, config := tarOf(t) // any digest
	descriptor := map[string]any{"mediaType": types.OCIConfigJSON, "digest": config.String(), "size": 2}
	for name, c := range map[string]struct {
		mediaType types.MediaType
		body      []byte
		code      codes.Code
		says      string
	}{
		"schema 1": {types.DockerManifestSchema1, manifestOf(t, map[string]any{
			"schemaVersion": 1, "name": "raw", "tag": "1", "architecture": "amd64",
			"fsLayers": []map[string]string{{"blobSum": config.String()}}, "history": []map[string]string{{"v1Compatibility": `{"id":"a"}`}},
		}), codes.Unimplemented, "schema 1"},
		"config that is not there":   {types.OCIManifestSchema1, manifestOf(t, map[string]any{"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "config": descriptor, "layers": []any{}}), codes.NotFound, ""},
		"no layers key":              {types.OCIManifestSchema1, manifestOf(t, map[string]any{"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "config": descriptor}), codes.NotFound, ""},
		"digest that is none":        {types.OCIManifestSchema1, manifestOf(t, map[string]any{"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "config": map[string]any{"mediaType": types.OCIConfigJSON, "digest": "sha256:../../etc", "size": 2}, "layers": []any{}}), codes.InvalidArgument, ""},
		"no JSON":                    {types.OCIManifestSchema1, []byte("{"), codes.InvalidArgument, ""},
		"an empty manifest":          {types.OCIManifestSchema1, []byte("{}"), codes.Unimplemented, "artifact"},
		"unknown type of manifest":   {"application/vnd.example.manifest", []byte(`{"schemaVersion":7}`), codes.InvalidArgument, ""},
		"a page of a captive portal": {"text/html", []byte("<html>pay first</html>"), codes.InvalidArgument, ""},
	} {
		t.Run(name, func(t *testing.T) {
			mustLeaveNothing(t, n, reg, reg.put(t, "raw-"+strings.ReplaceAll(name, " ", "-"), "1", string(c.mediaType), c.body), c.code, c.says)
		})
	}
	for _, path := range []string{"/secret", "/escaped"} {
		if requests := reg.takeRequests(path); len(requests) > 0 {
			t.Errorf("requests for %s: got %v, want none", path, requests)
		}
	}
}

// mustLeaveNothing pulls an image that must be refused, and checks that nothing remains.
func mustLeaveNothing(t *testing.T, n *node, _ *testRegistry, ref string, code codes.Code, says string) {
	t.Helper()
	before := len(n.listImages(t, ""))
	err := n.pullFor(t, "", ref)
	if status.Code(err) != code || !strings.Contains(fmt.Sprint(err), says) {
		t.Errorf("pull %s: got error %v, want %s and %q", ref, err, code, says)
	}
	if after := len(n.listImages(t, "")); after != before {
		t.Errorf("images after the refused pull of %s: got %d, want %d", ref, after, before)
	}
	staged, err := os.ReadDir(filepath.Join(n.Dir, "root/tmp"))
	if err != nil || len(staged) > 0 {
		t.Errorf("staged files after the failed pull: got %v (error %v), want none", staged, err)
	}
}

// TestValidImageContent pulls all kinds of layers and images that registries have.
func TestValidImageContent(t *testing.T) {
	n := pullNode(t, "taken")
	reg := newRegistry(t)
	n.trust(t, reg)
	tarball, diff := tarOf(t, textFile("f", "content"))
	emptyTar, emptyDiff := tarOf(t)
	compress := func(b []byte) []byte {
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return w.EncodeAll(b, nil)
	}
	// zstd:chunked has frames with a table of contents, which a zstd reader skips.
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0}, "toc!"...)
	double := layerOf(t, textFile("twice", ""))
	native := imageOf(t, v1.Config{}, layerOf(t, textFile("native", "")))
	index := mutate.IndexMediaType(empty.Index, types.DockerManifestList)
	for _, arch := range []string{"s390x", runtime.GOARCH} {
		img := native
		if arch != runtime.GOARCH {
			img = imageFor(t, v1.Platform{OS: "linux", Architecture: arch}, v1.Config{}, double)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	dockerImage, err := mutate.Append(empty.Image, mutate.Addendum{Layer: double, MediaType: types.DockerLayer})
	if err != nil {
		t.Fatal(err)
	}
	if dockerImage, err = setPlatform(dockerImage); err != nil {
		t.Fatal(err)
	}
	images := map[string]any{
		"plain tar":               withLayer(t, tarball, types.OCIUncompressedLayer, diff),
		"zstd":                    withLayer(t, compress(tarball), types.OCILayerZStd, diff),
		"zstd that is not said":   withLayer(t, append(compress(tarball), skippable...), types.OCILayer, diff),
		"zstd:chunked":            withLayer(t, append(append(skippable, compress(tarball)...), skippable...), types.OCILayerZStd, diff),
		"an empty layer":          withLayer(t, emptyTar, types.OCIUncompressedLayer, emptyDiff),
		"the same layer twice":    imageOf(t, v1.Config{}, double, layerOf(t, textFile("between", "")), double),
		"docker":                  dockerImage,
		"docker's list":           index,
		"a single other platform": imageFor(t, v1.Platform{OS: "linux", Architecture: "s390x"}, v1.Config{}, layerOf(t, textFile("f", "other"))),
	}
	for name, what := range images {
		ref := reg.push(t, strings.NewReplacer(" ", "-", ":", "-", "'", "").Replace(name)+":1", what)
		if err := n.pullFor(t, "", ref); err != nil {
			t.Errorf("%s: got error %v, want none", name, err)
		}
		if name == "docker's list" {
			id, err := native.ConfigName()
			if got := n.imageStatus(t, ref, false).GetImage(); err != nil || got.GetId() != id.String() || len(got.GetRepoDigests()) != 2 {
				t.Errorf("platform of the list: got %v (error %v), want id %s and two digests", got, err, id)
			}
		}
	}
}

func setPlatform(img v1.Image) (v1.Image, error) {
	f, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	f = f.DeepCopy()
	f.OS, f.Architecture = "linux", runtime.GOARCH
	return mutate.ConfigFile(img, f)
}

// TestInvalidImageRequests sends invalid references to each RPC that names an image.
func TestInvalidImageRequests(t *testing.T) {
	n := pullNode(t, "imgbad")
	digest := "@sha256:" + strings.Repeat("a", 64)
	bad := []string{
		"", " ", "\x00", "a\x00b", "a\nb", "UPPER", "host/UPPER:x", "a:", ":a", "@", "a@", "a@sha256:abc", "a@md5:" + strings.Repeat("a", 32),
		"sha256:" + strings.Repeat("a", 64), strings.Repeat("a", 64), "https://host/a", "docker://a", "../a", "/a", "a//b", "a/./b", "a:b:c", "-a", "a b",
		"a:" + strings.Repeat("t", 129), "ä", "a@SHA256:" + strings.Repeat("A", 64), "a" + digest + digest, strings.Repeat("a/", 200) + "a",
		strings.Repeat("a", 64<<10), "host/" + strings.Repeat("é", 32<<10), strings.Repeat("/", 64<<10), "[::1]:5000/a:", "host:99999999/a:b:c",
	}
	for _, ref := range bad {
		spec := &cri.ImageSpec{Image: ref}
		_, err := n.ImageService.PullImage(t.Context(), &cri.PullImageRequest{Image: spec})
		if status.Code(err) != codes.InvalidArgument || len(err.Error()) > 2000 {
			t.Errorf("PullImage %.40q: %.300v, want InvalidArgument", ref, err)
		}
		st, err := n.ImageService.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: spec, Verbose: true})
		want := codes.OK // the image does not exist
		if ref == "" {
			want = codes.InvalidArgument
		}
		if status.Code(err) != want || st.GetImage() != nil {
			t.Errorf("ImageStatus %.40q: got %v (error %.300v), want %s and no image", ref, st, err, want)
		}
		if _, err = n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: spec}); status.Code(err) != want {
			t.Errorf("RemoveImage %.40q: got error %.300v, want %s", ref, err, want)
		}
		list, err := n.ImageService.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: spec}})
		if err != nil || len(list.GetImages()) > 0 && ref != "" {
			t.Errorf("ListImages %.40q: got %d images (error %.300v), want none", ref, len(list.GetImages()), err)
		}
	}
	for name, call := range map[string]func() error{
		"PullImage": func() error { _, err := n.ImageService.PullImage(t.Context(), &cri.PullImageRequest{}); return err },
		"ImageStatus": func() error {
			_, err := n.ImageService.ImageStatus(t.Context(), &cri.ImageStatusRequest{})
			return err
		},
		"RemoveImage": func() error {
			_, err := n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{})
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "image.image") {
			t.Errorf("%s without an image: got error %v, want InvalidArgument", name, err)
		}
	}
	log, err := os.ReadFile(n.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(log) {
		if len(line) > 16<<10 {
			t.Errorf("length of a line in the log: got %d bytes, want at most 16 KiB: %.200s", len(line), line)
		}
	}
}
