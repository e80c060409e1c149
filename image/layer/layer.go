// Package layer stores the unpacked layers of images. Each layer has a directory, which is named
// after its diff ID and shared by all images with the layer. A layer is unpacked without the layers
// below it, so the layers of an image can be unpacked in any order and in parallel. Whiteouts are
// stored in the form of overlay: as character devices 0/0 and opaque attributes.
//
// The package must not deal with images, registries or mounts. The functions in [Config] report
// which layers are in use.
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
	// Blobs are the verified blobs that this layer was unpacked from.
	Blobs []Blob `json:"blobs"`
	// Bytes and Inodes are the disk usage, calculated from the tar: the sizes of the files in
	// blocks of 4 KiB, and one block for each directory.
	Bytes  uint64 `json:"bytes"`
	Inodes uint64 `json:"inodes"`
	// Entries is the number of entries of the tar. A layer without entries changes nothing.
	Entries int `json:"entries"`
	// Implied are the directories for which the tar has no entry but only entries below them, as
	// paths relative to the layer's root, which is ".". Their owner and mode in the layer have no
	// meaning, see [Stack].
	Implied []string `json:"implied,omitempty"`
	// OpaqueRoot reports whether the layer hides all layers below it.
	OpaqueRoot bool `json:"opaqueRoot,omitempty"`
	// Tree is the digest of the names and metadata of the unpacked files.
	Tree digest.Digest `json:"tree"`
	// BootID is the id of the boot in which the layer was unpacked. In a later boot the files can
	// be trusted only if an image with the layer was synced to disk.
	BootID string `json:"bootID"`
	// Added is the time at which the layer was unpacked.
	Added time.Time `json:"added"`

	dir string // the directory with the record and the files
}

// Blob is the blob of a layer in a registry.
type Blob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// Dir returns the directory with the files of the layer.
func (l *Layer) Dir() string { return filepath.Join(l.dir, filesDir) }

// Blob returns the blob with a digest. ok is false if the layer was not unpacked from that blob.
func (l *Layer) Blob(d digest.Digest) (blob Blob, ok bool) {
	for _, b := range l.Blobs {
		if b.Digest == d {
			return b, true
		}
	}
	return Blob{}, false
}

// Names in the directory of a layer.
const (
	filesDir   = "diff"
	recordFile = "layer.json"
)

// Limits are the maximum sizes of one layer.
type Limits struct {
	Entries int   // number of entries of the tar
	Bytes   int64 // of the uncompressed tar, and of all files, including holes

	windows *semaphore.Weighted // memory for zstd windows, shared by all layers; nil: no limit
}
