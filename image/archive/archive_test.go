package archive

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	layout = `{"imageLayoutVersion":"1.0.0"}`
	linux  = "linux/amd64"
)

// entry returns a regular file.
func entry(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644, PAXRecords: map[string]string{"TEST.content": content}}
}

func link(typ byte, name, target string) tar.Header {
	return tar.Header{Typeflag: typ, Name: name, Linkname: target}
}

// build returns a tar of entries.
func build(tb testing.TB, entries ...tar.Header) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.PAXRecords["TEST.content"]
		h.PAXRecords = nil
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func open(tb testing.TB, data []byte) (*Archive, error) {
	tb.Helper()
	return Open(tb.Context(), bytes.NewReader(data), int64(len(data)), linux)
}

// valid returns the entries of an image layout with one blob.
func valid(more ...tar.Header) []tar.Header {
	d := digest.FromString("m")
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":%q,"size":1}]}`, d)
	return append([]tar.Header{entry("oci-layout", layout), entry("index.json", index), entry("blobs/sha256/"+d.Encoded(), "m")}, more...)
}

// docker returns the entries of a docker-archive with one layer at a path.
func docker(config, layer string, more ...tar.Header) []tar.Header {
	c := fmt.Sprintf(`{"rootfs":{"diff_ids":[%q]}}`, digest.FromString("l"))
	m := fmt.Sprintf(`[{"Config":%q,"RepoTags":["a:1"],"Layers":[%q]}]`, config, layer)
	return append([]tar.Header{entry("c.json", c), entry("manifest.json", m), entry("l.tar", "l")}, more...)
}

func TestOpenHostile(t *testing.T) {
	hex := strings.Repeat("a", 64)
	huge := build(t, valid()...)
	copy(huge[124:136], "77777777777\x00") // the size of the first entry
	fixChecksum(huge[:512])
	many := make([]tar.Header, maxEntries+1)
	for i := range many {
		many[i] = tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprint("d", i, "/")}
	}
	whole := build(t, valid()...)
	for name, tc := range map[string]struct {
		data []byte
		want func(error) bool
	}{
		"empty":                         {nil, errdefs.IsInvalidArgument},
		"no tar":                        {[]byte(strings.Repeat("x", 2000)), errdefs.IsInvalidArgument},
		"no archive of images":          {build(t, entry("file", "")), errdefs.IsInvalidArgument},
		"truncated header":              {whole[:1024+200], errdefs.IsDataLoss},
		"truncated content":             {whole[:len(whole)-1024-512], errdefs.IsDataLoss},
		"huge size":                     {huge, errdefs.IsDataLoss},
		"many entries":                  {build(t, many...), errdefs.IsResourceExhausted},
		"name leads out":                {build(t, valid(entry("../x", ""))...), errdefs.IsInvalidArgument},
		"name leads out later":          {build(t, valid(entry("blobs/../../x", ""))...), errdefs.IsInvalidArgument},
		"absolute name":                 {build(t, valid(entry("/etc/passwd", ""))...), errdefs.IsInvalidArgument},
		"directory leads out":           {build(t, valid(tar.Header{Typeflag: tar.TypeDir, Name: "../x/"})...), errdefs.IsInvalidArgument},
		"other file":                    {build(t, valid(entry("file", ""))...), errdefs.IsInvalidArgument},
		"file below a blob":             {build(t, valid(entry("blobs/sha256/"+hex+"/x", ""))...), errdefs.IsInvalidArgument},
		"blob without an algorithm":     {build(t, valid(entry("blobs/"+hex, ""))...), errdefs.IsInvalidArgument},
		"unknown algorithm":             {build(t, valid(entry("blobs/md5/"+hex[:32], ""))...), errdefs.IsInvalidArgument},
		"upper case":                    {build(t, valid(entry("blobs/sha256/"+strings.ToUpper(hex), ""))...), errdefs.IsInvalidArgument},
		"symbolic link":                 {build(t, valid(link(tar.TypeSymlink, "blobs/sha256/"+hex, "../../index.json"))...), errdefs.IsInvalidArgument},
		"symbolic link to the host":     {build(t, valid(link(tar.TypeSymlink, "blobs/sha256/"+hex, "/etc/passwd"))...), errdefs.IsInvalidArgument},
		"hard link":                     {build(t, valid(link(tar.TypeLink, "blobs/sha256/"+hex, "index.json"))...), errdefs.IsInvalidArgument},
		"device":                        {build(t, valid(tar.Header{Typeflag: tar.TypeChar, Name: "blobs/sha256/" + hex})...), errdefs.IsInvalidArgument},
		"pipe":                          {build(t, valid(tar.Header{Typeflag: tar.TypeFifo, Name: "index.json2"})...), errdefs.IsInvalidArgument},
		"duplicate":                     {build(t, valid(valid()[1])...), errdefs.IsInvalidArgument},
		"duplicate with another name":   {build(t, valid(entry("./index.json", "{}"))...), errdefs.IsInvalidArgument},
		"sparse file":                   {sparse(t, valid()...), errdefs.IsInvalidArgument},
		"index is a link":               {build(t, entry("oci-layout", layout), link(tar.TypeSymlink, "index.json", "oci-layout")), errdefs.IsInvalidArgument},
		"no index":                      {build(t, entry("oci-layout", layout)), errdefs.IsInvalidArgument},
		"no images":                     {build(t, entry("oci-layout", layout), entry("index.json", "{}")), errdefs.IsInvalidArgument},
		"index is malformed":            {build(t, entry("oci-layout", layout), entry("index.json", "{")), errdefs.IsInvalidArgument},
		"index is large":                {build(t, entry("oci-layout", layout), entry("index.json", strings.Repeat(" ", maxDocument+1))), errdefs.IsResourceExhausted},
		"index with an invalid digest":  {build(t, entry("oci-layout", layout), entry("index.json", `{"manifests":[{"digest":"sha256:../../x"}]}`)), errdefs.IsInvalidArgument},
		"layout of another version":     {build(t, entry("oci-layout", `{"imageLayoutVersion":"2.0.0"}`), entry("index.json", "{}")), errdefs.IsNotImplemented},
		"docker: absolute config":       {build(t, docker("/etc/passwd", "l.tar")...), errdefs.IsInvalidArgument},
		"docker: config leads out":      {build(t, docker("../../etc/passwd", "l.tar")...), errdefs.IsInvalidArgument},
		"docker: absolute layer":        {build(t, docker("c.json", "/etc/passwd")...), errdefs.IsInvalidArgument},
		"docker: missing layer":         {build(t, docker("c.json", "other")...), errdefs.IsInvalidArgument},
		"docker: link leads out":        {build(t, docker("c.json", "x/y", link(tar.TypeSymlink, "x/y", "../../l.tar"))...), errdefs.IsInvalidArgument},
		"docker: absolute link":         {build(t, docker("c.json", "y", link(tar.TypeSymlink, "y", "/l.tar"))...), errdefs.IsInvalidArgument},
		"docker: dangling link":         {build(t, docker("c.json", "y", link(tar.TypeSymlink, "y", "none"))...), errdefs.IsInvalidArgument},
		"docker: loop of links":         {build(t, docker("c.json", "y", link(tar.TypeSymlink, "y", "z"), link(tar.TypeSymlink, "z", "y"))...), errdefs.IsInvalidArgument},
		"docker: link to a directory":   {build(t, docker("c.json", "y", tar.Header{Typeflag: tar.TypeDir, Name: "d/"}, link(tar.TypeSymlink, "y", "d"))...), errdefs.IsInvalidArgument},
		"docker: duplicate":             {build(t, docker("c.json", "l.tar", entry("l.tar", "x"))...), errdefs.IsInvalidArgument},
		"docker: number of layers":      {build(t, entry("c.json", `{}`), entry("l.tar", "l"), entry("manifest.json", `[{"Config":"c.json","Layers":["l.tar"]}]`)), errdefs.IsInvalidArgument},
		"docker: invalid diff id":       {build(t, entry("c.json", `{"rootfs":{"diff_ids":["sha256:x"]}}`), entry("l.tar", "l"), entry("manifest.json", `[{"Config":"c.json","Layers":["l.tar"]}]`)), errdefs.IsInvalidArgument},
		"docker: config is malformed":   {build(t, entry("c.json", `[`), entry("manifest.json", `[{"Config":"c.json"}]`)), errdefs.IsInvalidArgument},
		"docker: manifest is malformed": {build(t, entry("manifest.json", `{}`)), errdefs.IsInvalidArgument},
		"many images":                   {build(t, entry("manifest.json", "["+strings.Repeat(`{"Config":"c.json"},`, maxImages)+`{"Config":"c.json"}]`), entry("c.json", "{}")), errdefs.IsResourceExhausted},
		"many names":                    {build(t, entry("manifest.json", `[{"Config":"c.json","RepoTags":["a"`+strings.Repeat(`,"a"`, maxTags)+`]}]`), entry("c.json", "{}")), errdefs.IsResourceExhausted},
		"docker: no images":             {build(t, entry("manifest.json", `[]`)), errdefs.IsInvalidArgument},
		"docker: bzip2 layer":           {build(t, docker("c.json", "b.tar", entry("b.tar", "BZh91AY"))...), errdefs.IsNotImplemented},
	} {
		if _, err := open(t, tc.data); err == nil || !tc.want(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// sparse returns a tar whose first entry is a sparse file. The tar writer cannot write such an entry.
func sparse(tb testing.TB, entries ...tar.Header) []byte {
	tb.Helper()
	size := len(entries[0].PAXRecords["TEST.content"])
	var records strings.Builder
	for _, r := range []string{"major=0", "minor=1", "numblocks=1", fmt.Sprint("map=0,", size), fmt.Sprint("size=", size)} {
		r = " GNU.sparse." + r + "\n"
		fmt.Fprintf(&records, "%d%s", len(r)+2, r) // the length of each record has two digits
	}
	pax := build(tb, entry("pax", records.String()))[:1024]
	pax[156] = tar.TypeXHeader
	fixChecksum(pax[:512])
	return append(pax, build(tb, entries...)...)
}

// fixChecksum sets the checksum of a header.
func fixChecksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func TestOpenValid(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"oci":                        valid(),
		"oci with directories":       valid(tar.Header{Typeflag: tar.TypeDir, Name: "./"}, tar.Header{Typeflag: tar.TypeDir, Name: "./blobs/"}),
		"oci with files of docker":   valid(entry("manifest.json", "[]"), entry("repositories", "{}")),
		"docker":                     docker("c.json", "l.tar"),
		"docker with a link":         docker("c.json", "x/layer.tar", link(tar.TypeSymlink, "x/layer.tar", "../l.tar")),
		"docker with a hard link":    docker("c.json", "x/layer.tar", link(tar.TypeLink, "x/layer.tar", "l.tar")),
		"docker with links to links": docker("c.json", "y", link(tar.TypeSymlink, "y", "z"), link(tar.TypeSymlink, "z", "./l.tar")),
		"docker with dots":           docker("./c.json", "./l.tar"),
	} {
		a, err := open(t, build(t, entries...))
		if err != nil || len(a.Images) != 1 {
			t.Errorf("%s: got %+v, %v", name, a, err)
			continue
		}
		if b, err := a.Images[0].Document(a.Images[0].Digest); err != nil || len(b) == 0 {
			t.Errorf("%s: got manifest %q, %v", name, b, err)
		}
		if _, _, err := a.Images[0].Blob(digest.FromString("none")); !errdefs.IsNotFound(err) {
			t.Errorf("%s: blob that does not exist: got %v", name, err)
		}
	}
	damaged := valid()
	damaged[2] = entry(damaged[2].Name, "x")
	a, err := open(t, build(t, damaged...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Images[0].Document(a.Images[0].Digest); !errdefs.IsDataLoss(err) {
		t.Errorf("damaged manifest: got %v", err)
	}
}

// TestPlatform checks that an index of images for several platforms is one image, and how images are chosen and named.
func TestPlatform(t *testing.T) {
	a, b := digest.FromString("a"), digest.FromString("b")
	index := fmt.Sprintf(`{"manifests":[
		{"digest":%[1]q,"platform":{"os":"linux","architecture":"arm64"},"annotations":{"org.opencontainers.image.ref.name":"r.test/a:1"}},
		{"digest":%[2]q,"platform":{"os":"linux","architecture":"amd64"},"annotations":{"org.opencontainers.image.ref.name":"1.0"}},
		{"digest":%[2]q,"annotations":{"org.opencontainers.image.ref.name":"1.0","io.containerd.image.name":"r.test/b:1.0"}},
		{"digest":%[1]q,"annotations":{"vnd.docker.reference.type":"attestation-manifest"}}]}`, a, b)
	entries := []tar.Header{entry("oci-layout", layout), entry("index.json", index), entry("blobs/sha256/"+a.Encoded(), "a"), entry("blobs/sha256/"+b.Encoded(), "b")}
	for platform, want := range map[string]string{linux: "b r.test/b:1.0", "linux/riscv64": "b r.test/b:1.0", "linux/arm64": "a r.test/a:1 b r.test/b:1.0"} {
		data := build(t, entries...)
		got, err := Open(t.Context(), bytes.NewReader(data), int64(len(data)), platform)
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, img := range got.Images {
			content, _ := img.Document(img.Digest)
			texts = append(append(texts, string(content)), img.Names...)
		}
		if text := strings.Join(texts, " "); text != want {
			t.Errorf("%s: got %q, want %q", platform, text, want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(build(f, valid()...))
	f.Add(build(f, docker("c.json", "y", link(tar.TypeSymlink, "y", "l.tar"))...))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := open(t, data)
		if err != nil {
			return
		}
		for _, img := range a.Images {
			if b, err := img.Document(img.Digest); err == nil && img.Digest.Algorithm().FromBytes(b) != img.Digest {
				t.Errorf("document %q does not have the digest %s", b, img.Digest)
			}
		}
	})
}
