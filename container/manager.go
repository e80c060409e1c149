package container

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/boot"
	"github.com/criserver/criserver/internal/flight"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/oplock"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/cdi"
	"github.com/criserver/criserver/oci/qos"
)

// Config is what a Manager works with.
type Config struct {
	// RunDir is on tmpfs. Below it are containers/<id> and exits/<id>.
	RunDir   string
	Pods     Pods
	Images   Images
	Monitors Monitors
	Watcher  Watcher
	Cgroups  Cgroups
	// Usage returns the last measured size of a container's writable layer; nil
	// when nobody measures.
	Usage func(containerID string) (bytes, inodes uint64, err error)
	// LayerRoot is a directory on the file system of the writable layers.
	LayerRoot string
	// Runtimes are the OCI runtimes by handler name; DefaultRuntime names the
	// one that the empty handler stands for.
	Runtimes       map[string]*oci.Runtime
	DefaultRuntime string
	// MountOptions returns the options that a handler's runtime can set, or nil
	// for a runtime that does not tell.
	MountOptions func(handler string) []string
	// RefuseMissingHostPaths makes a mount of a host path that does not exist an
	// error; else a directory is made there.
	RefuseMissingHostPaths bool
	// Labels and AppArmor are nil where the machine has none.
	Labels   Labels
	AppArmor AppArmor
	// CDI finds the devices of vendors.
	CDI *cdi.Registry
	// DeviceOwnerIsUser gives the devices that a request names to the user and
	// group that it sets, where they are the host's root's otherwise.
	DeviceOwnerIsUser bool
	// PausePath is the static binary that keeps a guest, for runtimes with guests.
	PausePath string
	// UserNamespaces says why a handler cannot do user namespaces and mounts with
	// mapped ids, or nil when it can; nil when nobody knows.
	UserNamespaces func(handler string) error
	// BlockIO and RDT are the operator's classes, which annotations ask for.
	BlockIO qos.BlockIO
	RDT     qos.RDT
	// MapsSubmounts says whether a handler can map the ids of a mount together
	// with those of what is mounted below; nil when all can.
	MapsSubmounts func(handler string) bool
	// DaemonUnit is the systemd service that the daemon runs in, "" for none. It
	// stops after the scopes of the containers.
	DaemonUnit string
	// Builder makes the OCI configs.
	Builder *oci.Builder
	// Plugins have a say in containers; nil where there are none.
	Plugins Plugins
}

// lingerCreate is how long a creation goes on for a caller that has left.
const lingerCreate = time.Minute

// Manager owns all containers.
//
// Locks, in the order in which they may be taken: the operation lock of a
// container, or of a pod's guest while that one is held (Create, Start, UpdateResources and the cleaning part of Remove hold
// it; Stop and all that only looks do not), then mu, then a container's own mu.
type Manager struct {
	cfg     Config
	boot    string
	ops     oplock.Locks
	creates flight.Group[string]
	events  events
	ending  chan struct{}  // closed when Run ends
	tells   sync.WaitGroup // plugins being told of ends; begun with mu held

	mu         sync.RWMutex          // guards all below; never held across a wait
	containers map[string]*container // by id, those in the making included
	names      map[name]*container
	kept       map[string]bool // directories whose record could not be read
	ended      bool            // no more tells
}

// name is what the kubelet takes for a container's identity.
type name struct {
	pod     string
	name    string
	attempt uint32
}

// New returns a Manager that knows no container yet: call Restore, then Run.
func New(cfg Config) (*Manager, error) {
	if cfg.Runtimes[cfg.DefaultRuntime] == nil {
		return nil, fmt.Errorf("default runtime %q is not among the configured ones: %w", cfg.DefaultRuntime, errdefs.ErrInvalidArgument)
	}
	if !filepath.IsAbs(cfg.RunDir) {
		return nil, fmt.Errorf("run directory %q must be absolute: %w", cfg.RunDir, errdefs.ErrInvalidArgument)
	}
	id, err := boot.ID()
	if err != nil {
		return nil, err
	}
	return &Manager{
		cfg:        cfg,
		boot:       id,
		creates:    flight.Group[string]{Linger: lingerCreate},
		ending:     make(chan struct{}),
		containers: make(map[string]*container),
		names:      make(map[name]*container),
		kept:       make(map[string]bool),
	}, nil
}

// Get returns the container of a full id or a unique prefix. ErrNotFound when
// there is none, or none that is ready to be seen.
func (m *Manager) Get(id string) (*Snapshot, error) {
	c, err := m.find(id)
	if err != nil {
		return nil, err
	}
	return c.snap.Load(), nil
}

// List returns all containers, in no order.
func (m *Manager) List() []*Snapshot {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := make([]*Snapshot, 0, len(m.containers))
	for _, c := range m.containers {
		if s := c.snap.Load(); s != nil {
			list = append(list, s)
		}
	}
	return list
}

// Holds says whether a container of this full id exists in whatever form, also
// half made, or with a record that cannot be read: its writable layer may not
// be taken for garbage.
func (m *Manager) Holds(id string) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.containers[id] != nil || m.kept[id]
}

// find returns a container that can be seen.
func (m *Manager) find(id string) (*container, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	full, err := ids.Resolve("container", m.containers, id)
	if err != nil {
		return nil, err
	}
	c := m.containers[full]
	if c.snap.Load() == nil {
		return nil, fmt.Errorf("container %q: %w", id, errdefs.ErrNotFound)
	}
	return c, nil
}

// inPod returns a pod's containers, those in the making included.
func (m *Manager) inPod(pod string) []*container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var found []*container
	for _, c := range m.containers {
		if c.rec.PodID == pod {
			found = append(found, c)
		}
	}
	return found
}

func (m *Manager) byName(n name) *container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.names[n]
}

// register makes a container known, still unseen unless it has a snapshot.
func (m *Manager) register(c *container) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if other := m.names[c.name()]; other != nil {
		return fmt.Errorf("the name is taken by container %q: %w", short(other.id), errdefs.ErrAlreadyExists)
	}
	m.containers[c.id] = c
	m.names[c.name()] = c
	return nil
}

func (m *Manager) unregister(c *container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.containers, c.id)
	if m.names[c.name()] == c {
		delete(m.names, c.name())
	}
}

// runtime returns the OCI runtime of a handler name.
func (m *Manager) runtime(handler string) (*oci.Runtime, error) {
	if handler == "" {
		handler = m.cfg.DefaultRuntime
	}
	r := m.cfg.Runtimes[handler]
	if r == nil {
		return nil, fmt.Errorf("runtime handler %q is not configured: %w", handler, errdefs.ErrInvalidArgument)
	}
	return r, nil
}

func (m *Manager) dir(id string) string      { return filepath.Join(m.cfg.RunDir, "containers", id) }
func (m *Manager) exitFile(id string) string { return filepath.Join(m.exitsDir(), id) }
func (m *Manager) exitsDir() string          { return filepath.Join(m.cfg.RunDir, "exits") }

// invalid returns an ErrInvalidArgument. The message names the field of the request and
// the rule that the field breaks.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// errWrongState is for operations that a container's state does not allow.
func errWrongState(verb string, s *Snapshot) error {
	return fmt.Errorf("%s container %q: it is %s: %w", verb, short(s.ID), s.State, errdefs.ErrFailedPrecondition)
}

// short is how ids stand in messages.
func short(id string) string { return id[:min(len(id), 12)] }

// goneIsFine drops the error of an idempotent call on what is unknown.
func goneIsFine(err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}
