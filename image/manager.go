package image

import (
	"context"
	"fmt"
	"os"
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
	// PolicyDir has signature policies for single namespaces, as NAMESPACE.json.
	// They stand in for the one at PolicyPath. "": none.
	PolicyDir   string
	RegistriesD string // where signatures are kept; "": the system's registries.d
	AuthFile    string // "": the system's auth files
	// PinnedImages are names of images that garbage collection must leave:
	// exact, with "*" at the end, or with "*" at both ends.
	PinnedImages []string
	// MaxParallelLayers bounds the layers that one pull fetches at once; 6.
	MaxParallelLayers int
	// ProgressWindow ends a pull in which nothing moved for so long; 2 minutes.
	// Below zero: nothing does.
	ProgressWindow time.Duration
	// ReportInterval is between two lines in the log on a running pull; 10 s.
	ReportInterval time.Duration
	// ResumeWindow is how long the layers of a pull that did not succeed are
	// kept for the next try; an hour.
	ResumeWindow time.Duration
	// UsageInterval is between two measurements of a writable layer; 30 s.
	UsageInterval time.Duration
	Limits        Limits
}

// Limits bound what an image may make the store do. Zero is the default.
type Limits struct {
	Layers     int   // layers of an image; 500, which is also overlay's bound
	Entries    int   // files, directories and so on in one layer; 1,000,000
	LayerBytes int64 // unpacked size of one layer; 64 GiB
	Config     int64 // bytes of the image config; 4 MiB
}

func (c Config) withDefaults() Config {
	or(&c.MaxParallelLayers, 6)
	or(&c.ProgressWindow, 2*time.Minute)
	or(&c.ReportInterval, 10*time.Second)
	or(&c.ResumeWindow, time.Hour)
	or(&c.UsageInterval, 30*time.Second)
	or(&c.Limits.Layers, 500)
	or(&c.Limits.Entries, 1_000_000)
	or(&c.Limits.LayerBytes, 64<<30)
	or(&c.Limits.Config, 4<<20)
	return c
}

func or[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Manager owns the image store.
type Manager struct {
	cfg     Config
	bin     *trash.Bin
	layers  *layer.Store
	rootfs  *rootfs.Store
	volumes *rootfs.Volumes
	puller  *pull.Puller
	pulls   flight.Group[Image]
	// keySalt makes the keys of pulls worthless to whoever sees them.
	keySalt [32]byte

	// commit serializes changes of the records on disk. It is held across a
	// sync, so nobody who only reads or mounts may need it.
	commit chan struct{}
	// mu orders new uses of an image against its removal. Held for moments.
	mu sync.Mutex
	// mounting counts the root file systems and volumes under way, by image. Those
	// that are made are known to rootfs and volumes.
	mounting map[ID]int
	// now is what all readers see; replaced as a whole, with mu held.
	now atomic.Pointer[index]
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

// New returns a manager that has not touched the disk yet; see Restore.
func New(cfg Config) (*Manager, error) {
	if !filepath.IsAbs(cfg.Root) || !filepath.IsAbs(cfg.RunRoot) {
		return nil, fmt.Errorf("image store roots %q, %q are not absolute: %w", cfg.Root, cfg.RunRoot, errdefs.ErrInvalidArgument)
	}
	bootID, err := boot.ID()
	if err != nil {
		return nil, err
	}
	m := &Manager{
		cfg:      cfg.withDefaults(),
		bin:      trash.New(filepath.Join(cfg.Root, trashDir)),
		commit:   make(chan struct{}, 1),
		mounting: make(map[ID]int),
	}
	m.keySalt = newSalt()
	m.now.Store(newIndex(nil, nil, nil))
	m.layers = layer.NewStore(layer.Config{
		Dir: m.dir(layersDir), Stage: m.dir(stageDir), Bin: m.bin, BootID: bootID,
		Limits: layer.Limits{Entries: m.cfg.Limits.Entries, Bytes: m.cfg.Limits.LayerBytes},
		Used:   m.layerUsed, Mounted: m.layerMounted, Durable: m.layerDurable,
	})
	m.rootfs = rootfs.NewStore(rootfs.Config{
		Dir: m.dir(rootfsDir), Stage: m.dir(stageDir), Bin: m.bin, BootID: bootID,
		Interval: m.cfg.UsageInterval,
	})
	m.volumes = rootfs.NewVolumes(filepath.Join(cfg.RunRoot, volumesDir), bootID, m.rootfs)
	m.puller = pull.New(pull.Config{
		RegistriesConf: cfg.RegistriesConf, RegistriesConfDir: cfg.RegistriesConfDir,
		PolicyPath: cfg.PolicyPath, PolicyDir: cfg.PolicyDir, RegistriesD: cfg.RegistriesD, AuthFile: cfg.AuthFile,
		TempDir: m.dir(stageDir), RunDir: cfg.RunRoot,
		MaxParallelLayers: m.cfg.MaxParallelLayers, ProgressWindow: m.cfg.ProgressWindow, ReportInterval: m.cfg.ReportInterval,
		Limits: pull.Limits{Layers: m.cfg.Limits.Layers, Config: m.cfg.Limits.Config},
	}, m.layers)
	return m, nil
}

func (m *Manager) dir(name string) string { return filepath.Join(m.cfg.Root, name) }

// Restore loads the records and moves what an earlier process left behind to
// the trash. It is called once, before anything else. A record that cannot be
// read is reported in the log and does not keep the rest from being loaded.
func (m *Manager) Restore(ctx context.Context) error {
	for _, name := range []string{".", imagesDir, layersDir, rootfsDir, stageDir, trashDir} {
		// Set-user-id programs of images lie below: nobody else may look in.
		if err := os.MkdirAll(m.dir(name), 0o700); err != nil {
			return fmt.Errorf("restore image store: %w", err)
		}
	}
	if err := os.MkdirAll(m.cfg.RunRoot, 0o711); err != nil {
		return fmt.Errorf("restore image store: %w", err)
	}
	report := m.report(ctx)
	// What containers have mounted comes first: images and layers in use must not
	// be taken for leftovers.
	for _, step := range []func() error{
		func() error { return m.bin.PutAll(m.dir(stageDir)) },
		func() error { return m.rootfs.Restore(report) },
		func() error { return m.volumes.Restore(report) },
		func() error { return m.restoreImages(report) },
		func() error { return m.layers.Restore(report) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("restore image store: %w", err)
		}
	}
	m.checkLayers(report)
	return nil
}

func (m *Manager) report(ctx context.Context) func(error) {
	log := logrus.WithContext(ctx)
	return func(err error) { log.WithError(err).Warn("image store") }
}

// Run empties the trash, measures writable layers, and deletes the layers that
// no retry came back for, until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	report := m.report(ctx)
	var all sync.WaitGroup
	all.Go(func() { m.bin.Run(ctx, report) })
	all.Go(func() { m.rootfs.Run(ctx) })
	all.Go(func() { m.expire(ctx, report) })
	all.Wait()
	return nil
}

// EmptyTrash deletes what Run else would, for a process that does not Run.
func (m *Manager) EmptyTrash(ctx context.Context) error { return m.bin.Empty(ctx) }

func (m *Manager) expire(ctx context.Context, report func(error)) {
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

// lockCommit waits for the turn to change records.
func (m *Manager) lockCommit(ctx context.Context) (unlock func(), err error) {
	select {
	case m.commit <- struct{}{}:
		return func() { <-m.commit }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another change of images: %w", context.Cause(ctx))
	}
}
