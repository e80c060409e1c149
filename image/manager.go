package image

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
)

// Config is what the image store needs to know. Zero values of everything but
// Root and RunRoot mean the default named.
type Config struct {
	Root    string // durable: layers, images, writable layers
	RunRoot string // tmpfs: nothing in it outlives a reboot

	RegistriesConf    string // "": the system's registries.conf
	RegistriesConfDir string // "": the system's registries.conf.d
	// PolicyPath is the signature policy, which must exist. "": the system's
	// policy.json, or every image is accepted where there is none.
	PolicyPath string
	AuthFile   string // "": the system's auth files
	// PinnedImages are references that Remove of the garbage collector must
	// leave: exact, or ending in "*".
	PinnedImages []string
	// MaxParallelLayers bounds the layers that one pull fetches at once.
	MaxParallelLayers int
	// ProgressWindow ends a pull in which nothing moved for so long.
	ProgressWindow time.Duration
	// BigFilesTemporaryDir is where the pull keeps what it cannot stream.
	BigFilesTemporaryDir string
	Limits               Limits
}

// Limits bound what an image may make the store do. Zero is the default.
type Limits struct {
	Layers     int   // layers of an image; 500, which is also overlay's bound
	Entries    int   // files, directories and so on in one layer
	LayerBytes int64 // unpacked size of one layer
	Config     int64 // bytes of the image config
}

// Manager owns the image store.
type Manager struct{ cfg Config }

// New returns a manager that has not touched the disk yet; see Restore.
func New(cfg Config) (*Manager, error) { return &Manager{cfg: cfg}, nil }

// Restore loads the records and sweeps what an earlier process left behind. It
// is called once, before anything else.
func (m *Manager) Restore(context.Context) error { return errdefs.ErrNotImplemented }

// Run refreshes the usage figures and deletes layers that nobody came back
// for, until ctx ends.
func (m *Manager) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Pull fetches an image. The same request made while one is under way waits
// for that one.
func (m *Manager) Pull(context.Context, PullRequest) (Image, error) {
	return Image{}, errdefs.ErrNotImplemented
}

// Get returns the image that ref names: an id with or without "sha256:", a
// unique prefix of one, a tag or a digest reference.
func (m *Manager) Get(string) (Image, error) { return Image{}, errdefs.ErrNotFound }

// List returns all images, ordered by id.
func (m *Manager) List() []Image { return nil }

// Remove deletes the image with all its tags. Errors: ErrNotFound,
// ErrFailedPrecondition while a root file system uses it.
func (m *Manager) Remove(context.Context, string) error { return errdefs.ErrNotFound }

// FSUsage returns what images and writable layers take.
func (m *Manager) FSUsage(context.Context) (images, containers FSUsage, err error) {
	return images, containers, errdefs.ErrNotImplemented
}

// MountRootFS makes the writable layer of a container and mounts its root file
// system at target, an existing directory.
func (m *Manager) MountRootFS(context.Context, ID, string, string) (RootFS, error) {
	return RootFS{}, errdefs.ErrNotImplemented
}

// UnmountRootFS undoes MountRootFS. An unknown container is no error.
func (m *Manager) UnmountRootFS(context.Context, string) error { return errdefs.ErrNotImplemented }

// RootFSUsage returns the last measured size of a container's writable layer.
func (m *Manager) RootFSUsage(string) (bytes, inodes uint64, err error) {
	return 0, 0, errdefs.ErrNotFound
}

// Sweep removes the writable layers of containers that live does not know.
func (m *Manager) Sweep(context.Context, func(containerID string) bool) error { return nil }
