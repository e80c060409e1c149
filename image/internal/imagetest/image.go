package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Entry is one entry of a layer.
type Entry struct {
	tar.Header
	Content string
}

// File returns a regular file with the mode 0644.
func File(name, content string) Entry {
	return Entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: Time}, content}
}

// Dir returns a directory with the mode 0755.
func Dir(name string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: Time}}
}

// DirMode returns a directory with an owner and a mode.
func DirMode(name string, uid int, mode int64) Entry {
	e := Dir(name)
	e.Uid, e.Gid, e.Mode = uid, uid, mode
	return e
}

// Symlink returns a symbolic link.
func Symlink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: Time}}
}

// HardLink returns a hard link.
func HardLink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644, ModTime: Time}}
}

// Time is the modification time of all entries.
var Time = time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)

// Tar returns the tar of a layer.
func Tar(tb testing.TB, entries ...Entry) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.Content))
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write([]byte(e.Content)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// Layer is the blob of a layer.
type Layer struct {
	Blob      []byte
	DiffID    digest.Digest
	MediaType string
	URLs      []string
}

// Digest returns the digest of the blob.
func (l Layer) Digest() digest.Digest { return digest.FromBytes(l.Blob) }

// Gzip returns a tar as a gzip layer.
func Gzip(tb testing.TB, t []byte) Layer {
	tb.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(t); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return Layer{Blob: b.Bytes(), DiffID: digest.FromBytes(t), MediaType: ispec.MediaTypeImageLayerGzip}
}

// Zstd returns a tar as a zstd layer.
func Zstd(tb testing.TB, t []byte) Layer {
	tb.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return Layer{Blob: w.EncodeAll(t, nil), DiffID: digest.FromBytes(t), MediaType: ispec.MediaTypeImageLayerZstd}
}

// Plain returns a tar as an uncompressed layer.
func Plain(t []byte) Layer {
	return Layer{Blob: t, DiffID: digest.FromBytes(t), MediaType: ispec.MediaTypeImageLayer}
}

// Files returns a gzip layer with entries.
func Files(tb testing.TB, entries ...Entry) Layer { return Gzip(tb, Tar(tb, entries...)) }

// Pushable is an image or an index that can be pushed.
type Pushable interface {
	push() (mediaType string, body []byte, parts []part)
}

// part is a manifest if it has a media type, and a blob otherwise.
type part struct {
	mediaType string
	body      []byte
}

// Image is an image that can be pushed.
type Image struct {
	Layers []Layer
	Config ispec.ImageConfig
	Docker bool // the manifest is of docker schema 2 instead of OCI
	Arch   string
	// Comment makes images with the same layers differ.
	Comment string
	// DiffIDs, if set, replace the right diff IDs in the config.
	DiffIDs []digest.Digest
	// RawConfig, if set, is the config.
	RawConfig []byte
	// Algorithm is the algorithm of the digests in the manifest. "" means SHA-256.
	Algorithm digest.Algorithm
}

func (i Image) algorithm() digest.Algorithm {
	if i.Algorithm == "" {
		return digest.Canonical
	}
	return i.Algorithm
}

func (i Image) config() []byte {
	if i.RawConfig != nil {
		return i.RawConfig
	}
	if i.Arch == "" {
		i.Arch = runtime.GOARCH
	}
	c := ispec.Image{Platform: ispec.Platform{OS: "linux", Architecture: i.Arch}, Config: i.Config, Author: i.Comment}
	c.RootFS.Type = "layers"
	for _, l := range i.Layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.DiffID)
	}
	if i.DiffIDs != nil {
		c.RootFS.DiffIDs = i.DiffIDs
	}
	return marshal(c)
}

// ID returns the digest of the config.
func (i Image) ID() digest.Digest { return i.algorithm().FromBytes(i.config()) }

func (i Image) push() (string, []byte, []part) {
	config := i.config()
	m := ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest,
		Config: descriptor(ispec.MediaTypeImageConfig, config), Layers: []ispec.Descriptor{},
	}
	m.Config.Digest = i.ID()
	parts := []part{{body: config}}
	for _, l := range i.Layers {
		d := descriptor(l.MediaType, l.Blob)
		if i.Docker && l.MediaType == ispec.MediaTypeImageLayerGzip {
			d.MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
		}
		d.URLs = l.URLs
		d.Digest = i.algorithm().FromBytes(l.Blob)
		m.Layers = append(m.Layers, d)
		parts = append(parts, part{body: l.Blob})
	}
	if i.Docker {
		m.MediaType = "application/vnd.docker.distribution.manifest.v2+json"
		m.Config.MediaType = "application/vnd.docker.container.image.v1+json"
	}
	return m.MediaType, marshal(m), parts
}

// Index is an index of images for several platforms.
type Index []Image

func (x Index) push() (string, []byte, []part) {
	index := ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex}
	var parts []part
	for _, i := range x {
		mediaType, body, p := i.push()
		d := descriptor(mediaType, body)
		d.Platform = &ispec.Platform{OS: "linux", Architecture: i.Arch}
		index.Manifests = append(index.Manifests, d)
		parts = append(append(parts, p...), part{mediaType, body})
	}
	return index.MediaType, marshal(index), parts
}

func descriptor(mediaType string, b []byte) ispec.Descriptor {
	return ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
