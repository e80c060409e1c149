// Package inspect describes checkpoints on a disk: the archives of containers and the directories of pod checkpoints.
// The package needs no daemon, extracts nothing, and trusts nothing that it reads: package checkpoint/archive limits
// the names, the number and the sizes of the entries.
package inspect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"golang.org/x/sys/unix"
)

// Kinds of checkpoints.
const (
	KindContainer = "container"
	KindPod       = "pod"
)

// Checkpoint describes a checkpoint. The names in JSON are part of the interface of the command "checkpoint inspect".
type Checkpoint struct {
	Kind string `json:"kind"` // KindContainer or KindPod
	Path string `json:"path"`
	Size int64  `json:"size"` // of all files in bytes
	// Origin describes the node. Version is 0 for an archive of another program, which has no description of the node.
	archive.Origin
	Pod        Pod         `json:"pod"`
	Containers []Container `json:"containers"`
	// Files are the files that all containers of a pod share.
	Files []File `json:"files,omitempty"`
	// Authentic reports whether the daemon with the key of the Options has written the checkpoint. Authentic is nil
	// without a key.
	Authentic *bool `json:"authentic,omitempty"`
	// NotContained lists the objects that a restore needs and the checkpoint does not contain.
	NotContained []string `json:"notContained"`
}

// Pod describes the pod sandbox. Only pod checkpoints have the fields after PodName.
type Pod struct {
	archive.PodName
	Hostname string           `json:"hostname,omitempty"`
	Network  string           `json:"network,omitempty"` // archive.NamespaceOfPod or archive.NamespaceOfNode
	IPC      string           `json:"ipc,omitempty"`     // archive.NamespaceOfPod or archive.NamespaceOfNode
	SELinux  *archive.SELinux `json:"selinux,omitempty"`
}

// Container describes a container of a checkpoint.
type Container struct {
	Name     string   `json:"name"`
	Attempt  uint32   `json:"attempt"`
	ID       string   `json:"id"`
	ImageRef string   `json:"imageRef"`
	ImageID  string   `json:"imageID"`
	Args     []string `json:"args,omitempty"`
	// CreatedAt is the time of the creation of the container.
	CreatedAt time.Time `json:"createdAt,omitzero"`
	File
	Parts []Part `json:"parts"`
	// DeletedFiles is the number of files of the image that the container has deleted.
	DeletedFiles int `json:"deletedFiles"`
	// BindMounts are the mount points of files of the node, which the checkpoint does not contain.
	BindMounts []string `json:"bindMounts,omitempty"`

	info *archive.ContainerInfo // nil for an archive of another program
}

// File is a file of a checkpoint.
type File struct {
	Path   string `json:"file"`   // relative to the directory of a pod checkpoint
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // of the content, hexadecimal; "" if the file could not be read to its end
	Digest Digest `json:"digest"`
	Error  string `json:"error,omitempty"` // why the file is not valid
}

// Digest is the result of the comparison of a digest with the manifest.
type Digest string

// Results of the comparison of a digest.
const (
	DigestVerified Digest = "verified"
	DigestDiffers  Digest = "differs"
	// DigestUnknown is the Digest of an archive without a manifest, which contains no digest of itself, and of a file
	// that could not be read to its end.
	DigestUnknown Digest = "unknown"
)

// Part is a part of an archive.
type Part struct {
	Name  string `json:"name"`
	Files int    `json:"files"` // number of entries of the archive
	Size  int64  `json:"size"`  // bytes
}

// Options are the input of Open.
type Options struct {
	// Key is the key of the daemon that must have written the checkpoint; nil for any program.
	Key archive.Key
}

// Valid reports whether all files of the checkpoint are valid, and the checkpoint is authentic if there was a key.
func (c *Checkpoint) Valid() bool {
	valid := c.Authentic == nil || *c.Authentic
	for _, f := range c.Containers {
		valid = valid && f.Error == ""
	}
	for _, f := range c.Files {
		valid = valid && f.Error == ""
	}
	return valid
}

// Open describes the container archive, or the directory of a pod checkpoint, with the path.
//
// Errors: ErrNotFound; ErrInvalidArgument for a file that is neither; ErrFailedPrecondition for another version of the
// format. The errors of single files of a pod checkpoint are in the description.
func Open(ctx context.Context, path string, o Options) (*Checkpoint, error) {
	// O_NONBLOCK: do not wait for the writer of a FIFO.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("inspect checkpoint: %w: %w", err, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("inspect checkpoint: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("inspect checkpoint: %w", err)
	}
	var c *Checkpoint
	switch {
	case info.IsDir():
		c, err = openPod(ctx, path, o)
	case info.Mode().IsRegular():
		c, err = openContainer(ctx, f, o)
	default:
		err = fmt.Errorf("is neither a file nor a directory: %w", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, fmt.Errorf("inspect checkpoint %s: %w", path, err)
	}
	c.Path = path
	return c, nil
}
