package image

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/image/pull"
	"github.com/criserver/criserver/image/rootfs"
	"github.com/criserver/criserver/image/trash"
	"github.com/criserver/criserver/internal/boot"
	"github.com/criserver/criserver/internal/flight"
)

// Config configures a Manager. Root, RunRoot, MaxParallelLayers and Limits must be set. For all
// other fields, the zero value means the default that their comment states.
type Config struct {
	Root    string // durable: layers, images, writable layers
	RunRoot string // on tmpfs: files that a reboot deletes

	RegistriesConf    string // default: registries.conf of the system
	RegistriesConfDir string // default: registries.conf.d of the system
	// PolicyPath is the signature policy, which must exist. The default is policy.json of the
	// system. If the system has none, every image is accepted.
	PolicyPath string
	// PolicyDir has signature policies for namespaces as NAMESPACE.json. A namespace without one
	// has the policy at PolicyPath. By default no namespace has its own policy.
	PolicyDir   string
	RegistriesD string // says where signatures are stored; default: registries.d of the system
	AuthFile    string // default: the auth files of the system
	// PinnedImages are the names of images that garbage collection must not remove. A name can have
	// "*" at the end or at both ends.
	PinnedImages []string
	// MaxParallelLayers is the maximum number of layers that one pull fetches in parallel.
	MaxParallelLayers int
	// ProgressWindow is the time without progress after which a pull is cancelled. By default no
	// pull is cancelled.
	ProgressWindow time.Duration
	// ReportInterval is the time between two log lines of a running pull. The default is 10 seconds.
	ReportInterval time.Duration
	// ResumeWindow is the time for which the layers of a failed pull are kept for the next attempt.
	// The default is an hour.
	ResumeWindow time.Duration
	// UsageInterval is the time between two measurements of a writable layer. The default is 30 seconds.
	UsageInterval time.Duration
	Limits        Limits
	// MaxArchiveBytes is the maximum size of an uncompressed archive that Load stores temporarily. The default is
	// 64 GiB.
	MaxArchiveBytes int64
	// ArchiveDirs are the directories whose archives LoadArchives loads.
	ArchiveDirs []string
	// SpoolReserve is the free space in bytes that a temporary archive must leave. The default is 256 MiB.
	SpoolReserve int64
}

// Limits are the maximum sizes of an image.
type Limits struct {
	Layers     int   // number of layers of an image
	Entries    int   // number of entries of one layer
	LayerBytes int64 // unpacked size of one layer
}

// maxConfigBytes is the maximum size of an image config.
const maxConfigBytes = 4 << 20

func (c Config) withDefaults() Config {
	setDefault(&c.ReportInterval, 10*time.Second)
	setDefault(&c.ResumeWindow, time.Hour)
	setDefault(&c.UsageInterval, 30*time.Second)
	setDefault(&c.MaxArchiveBytes, 64<<30)
	setDefault(&c.SpoolReserve, 256<<20)
	return c
}

// setDefault sets *v to def if *v is the zero value.
func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Manager owns the images, the layer store, and the root file systems and image volumes of containers.
type Manager struct {
	cfg     Config
	bin     *trash.Bin
	layers  *layer.Store
	rootfs  *rootfs.Store
	volumes *rootfs.Volumes
	// puller is replaced by Update. A pull uses one puller from its start to its end.
	puller atomic.Pointer[pull.Puller]
	pulls  flight.Group[Image]
	// maxArchiveBytes is the maximum size of an uncompressed archive that is loaded.
	maxArchiveBytes atomic.Int64
	archives        archiveDirs
	// keySalt is the key of the MAC in pullKey, so that the keys of pulls do not reveal credentials.
	keySalt [32]byte

	// changes has the capacity one. It is full while a goroutine changes records on disk. It is
	// full during a sync too, so operations that only read or mount do not use it. mu is taken
	// after it.
	changes chan struct{}
	// mu keeps an image from being removed while a container begins to use it. It is never held
	// during disk I/O.
	mu sync.Mutex
	// pinned is guarded by mu.
	pinned pins
	// mounting has the number of root file systems and volumes that are being mounted, by image.
	// The mounted ones have records in rootfs and volumes.
	mounting map[ID]int
	// index is the snapshot that readers use. It is replaced with mu held.
	index atomic.Pointer[index]
}

// Names below Root.
const (
	imagesDir = "images"
	layersDir = "layers"
	rootfsDir = "rootfs"
	stageDir  = "tmp"
	trashDir  = "trash"
)

// volumesDir is below RunRoot.
const volumesDir = "volumes"

// New returns a manager. It does not access the disk. The caller must call Restore before anything else.
func New(cfg Config) (*Manager, error) {
	if !filepath.IsAbs(cfg.Root) || !filepath.IsAbs(cfg.RunRoot) {
		return nil, fmt.Errorf("image store root %q or %q is not an absolute path: %w", cfg.Root, cfg.RunRoot, errdefs.ErrInvalidArgument)
	}
	if err := cfg.checkLimits(); err != nil {
		return nil, err
	}
	bootID, err := boot.ID()
	if err != nil {
		return nil, err
	}
	m := &Manager{
		cfg:      cfg.withDefaults(),
		bin:      trash.New(filepath.Join(cfg.Root, trashDir)),
		changes:  make(chan struct{}, 1),
		mounting: make(map[ID]int),
		pinned:   pins{patterns: cfg.PinnedImages},
	}
	m.keySalt = newSalt()
	m.index.Store(newIndex(nil, nil, pins{}))
	m.layers = layer.NewStore(layer.Config{
		Dir: m.dir(layersDir), Stage: m.dir(stageDir), Bin: m.bin, BootID: bootID,
		Limits: m.cfg.layerLimits(),
		Used:   m.layerUsed, Mounted: m.layerMounted, Durable: m.layerDurable,
	})
	m.rootfs = rootfs.NewStore(rootfs.Config{
		Dir: m.dir(rootfsDir), Stage: m.dir(stageDir), Bin: m.bin, BootID: bootID,
		Interval: m.cfg.UsageInterval,
	})
	m.volumes = rootfs.NewVolumes(filepath.Join(cfg.RunRoot, volumesDir), bootID, m.rootfs)
	m.puller.Store(pull.New(m.cfg.pullConfig(), m.layers))
	m.archives.init(m.cfg.ArchiveDirs)
	m.maxArchiveBytes.Store(m.cfg.MaxArchiveBytes)
	return m, nil
}

func (m *Manager) dir(name string) string { return filepath.Join(m.cfg.Root, name) }

// logWarning returns a function that logs errors of the image store.
func (m *Manager) logWarning(ctx context.Context) func(error) {
	log := logrus.WithContext(ctx)
	return func(err error) { log.WithError(err).Warn("image store operation failed") }
}

// Run empties the trash, measures writable layers, and deletes the layers of failed pulls after the
// resume window, until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	report := m.logWarning(ctx)
	var all sync.WaitGroup
	all.Go(func() { m.bin.Run(ctx, report) })
	all.Go(func() { m.rootfs.Run(ctx) })
	all.Go(func() { m.expireLayers(ctx, report) })
	all.Wait()
	return nil
}

// EmptyTrash deletes the files in the trash, for a process that does not call Run.
func (m *Manager) EmptyTrash(ctx context.Context) error { return m.bin.Empty(ctx) }

// expireLayers deletes the layers that are not in use after the resume window.
func (m *Manager) expireLayers(ctx context.Context, report func(error)) {
	tick := time.NewTicker(m.cfg.ResumeWindow / 4)
	defer tick.Stop()
	for {
		if err := m.layers.DropOlder(ctx, time.Now().Add(-m.cfg.ResumeWindow)); err != nil && ctx.Err() == nil {
			report(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lockChanges waits until no other goroutine changes records.
func (m *Manager) lockChanges(ctx context.Context) (unlock func(), err error) {
	select {
	case m.changes <- struct{}{}:
		return func() { <-m.changes }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another change of the image store: %w", context.Cause(ctx))
	}
}

// LayerCount returns the number of layers that can be used.
func (m *Manager) LayerCount() int { return m.layers.Count() }

// FSUsage returns the disk usage of images, from their records, and of the writable layers of
// containers, from past measurements.
func (m *Manager) FSUsage(context.Context) (images, containers FSUsage, err error) {
	images = FSUsage{Mountpoint: m.cfg.Root, Time: time.Now()}
	images.Bytes, images.Inodes = m.layers.Total()
	for _, img := range m.index.Load().all {
		images.Bytes += uint64(len(img.RawConfig))
		images.Inodes += 4 // the directory and its files
	}
	written := m.rootfs.Total()
	containers = FSUsage{Mountpoint: m.cfg.Root, Time: written.At, Bytes: written.Bytes, Inodes: written.Inodes}
	return images, containers, nil
}
