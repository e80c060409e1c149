// Package layer keeps the unpacked layers of images, each in a directory of its
// own under its diff ID, shared by all images that have it. A layer is unpacked
// without its parents, so layers of an image can arrive in any order and side
// by side; what is deleted below is kept in overlay's own form: character
// devices 0/0 and the opaque attribute.
//
// It knows nothing of images, registries or mounts. Which layers are still
// wanted is told to it.
package layer

import (
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
)

// Layer is an unpacked layer. It is immutable.
type Layer struct {
	// DiffID is the digest of the uncompressed tar.
	DiffID digest.Digest `json:"diffID"`
	// Blobs are the blobs, whole and verified, that unpack to this layer.
	Blobs []Blob `json:"blobs"`
	// Bytes and Inodes are what it takes on disk, reckoned from the tar: files
	// in blocks of 4 KiB, a block for each directory.
	Bytes  uint64 `json:"bytes"`
	Inodes uint64 `json:"inodes"`
	// Entries counts the entries of the tar. A layer of none changes nothing.
	Entries int `json:"entries"`
	// Implied are the directories that the tar has no entry for but only
	// entries below, relative to the layer's root, which is "." when it is one
	// of them. Their owner and mode are of no meaning: see [Stack].
	Implied []string `json:"implied,omitempty"`
	// OpaqueRoot says that the layer hides everything below it.
	OpaqueRoot bool `json:"opaqueRoot,omitempty"`
	// Tree is a digest over the unpacked files' names and metadata.
	Tree digest.Digest `json:"tree"`
	// BootID is the boot that unpacked it. In a later one the files can be
	// trusted only if an image that has the layer was synced to disk.
	BootID string `json:"bootID"`
	// Added is when it was unpacked.
	Added time.Time `json:"added"`

	dir string // of the record and the files
}

// Blob names a layer's blob as a registry has it.
type Blob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// Dir returns the directory with the layer's files.
func (l *Layer) Dir() string { return filepath.Join(l.dir, filesDir) }

// Blob returns what is known of the blob with this digest.
func (l *Layer) Blob(d digest.Digest) (Blob, bool) {
	for _, b := range l.Blobs {
		if b.Digest == d {
			return b, true
		}
	}
	return Blob{}, false
}

// Names in a layer's directory.
const (
	filesDir   = "diff"
	recordFile = "layer.json"
)

// Limits bound what one layer may make the store do.
type Limits struct {
	Entries int   // entries of the tar
	Bytes   int64 // of the uncompressed tar, and of the files with their holes filled

	windows *semaphore.Weighted // shared by all layers that are unpacked; nil: no bound
}
