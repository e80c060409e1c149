package container

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/container/exits"
	"github.com/criserver/criserver/container/guest"
	"github.com/criserver/criserver/internal/boot"
	"github.com/criserver/criserver/internal/flight"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/oplock"
	"github.com/criserver/criserver/internal/proc"
)

// Config is the input of New.
type Config struct {
	// RunDir is on tmpfs. It has the directories containers/<id> and guests/<pod id>, and
	// the exit records exits/<id>.
	RunDir string
	// RestoreDir has the process images of containers that are restored from checkpoints, until the
	// containers are started. It is on a disk, because the images are as large as the memory of
	// the processes. Only the Manager writes to the directory. If RestoreDir is empty, no container can be restored.
	RestoreDir string
	Pods       Pods
	Images     Images
	Monitors   Monitors
	Watcher    Watcher
	Cgroups    Cgroups
	// Usage returns the last measured size of the writable layer of a container. It is nil
	// if the sizes are not measured.
	Usage func(containerID string) (bytes, inodes uint64, err error)
	// LayerRoot is a directory on the file system of the writable layers.
	LayerRoot string
	// Labels and AppArmor are nil if the host has no SELinux or no AppArmor.
	Labels   bundle.Labeler
	AppArmor bundle.AppArmor
	// PausePath is the static binary of the pause process, for runtimes with guests.
	PausePath string
	// DaemonUnit is the systemd service of the daemon, or "". The service stops after the
	// scopes of the containers.
	DaemonUnit string
	// Plugins are notified of the life of containers, and can change them. Plugins is nil
	// if NRI is off.
	Plugins Plugins
	// Settings are the settings until the first Update.
	Settings Settings
	// Observer is notified of events that metrics count. It can be nil.
	Observer Observer
}

// lingerCreate is how long a creation continues after its caller has given up.
const lingerCreate = time.Minute

// Manager manages all containers.
//
// A goroutine takes locks in this order: the operation lock of a container, the
// operation lock of the guest of its pod (package guest), Manager.mu, container.mu. Create, Start,
// UpdateResources and the teardown of Remove hold the operation lock of the container.
// Stop and the operations that only read do not.
type Manager struct {
	cfg           Config // without the settings
	settings      atomic.Pointer[Settings]
	boot          string
	ops           oplock.Locks // the operation locks of the containers
	guests        *guest.Manager
	exits         exits.Dir
	creates       flight.Group[string]
	events        events
	stopping      chan struct{}  // closed when Run ends
	notifications sync.WaitGroup // notifications of exits; Go is called with mu held

	mu         sync.RWMutex          // guards the fields below; never held during a wait
	containers map[string]*container // by id, including containers in their creation
	names      map[name]*container
	unreadable map[string]bool // ids of directories that could not be removed in the recovery
	closed     bool            // no notification may begin
}

// name identifies a container for the kubelet.
type name struct {
	pod     string
	name    string
	attempt uint32
}

// New returns a Manager without containers. The caller calls Recover and then Run.
func New(cfg Config) (*Manager, error) {
	if err := cfg.Settings.check(); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(cfg.RunDir) {
		return nil, fmt.Errorf("run directory %q must be absolute: %w", cfg.RunDir, errdefs.ErrInvalidArgument)
	}
	id, err := boot.ID()
	if err != nil {
		return nil, err
	}
	settings := cfg.Settings
	cfg.Settings = Settings{}
	m := &Manager{
		cfg:        cfg,
		boot:       id,
		exits:      exits.Dir(filepath.Join(cfg.RunDir, "exits")),
		creates:    flight.Group[string]{Linger: lingerCreate},
		stopping:   make(chan struct{}),
		containers: make(map[string]*container),
		names:      make(map[name]*container),
		unreadable: make(map[string]bool),
	}
	m.settings.Store(&settings)
	m.guests = guest.New(guest.Config{
		Dir: filepath.Join(cfg.RunDir, "guests"), Boot: id, PausePath: cfg.PausePath, Watcher: cfg.Watcher, Cgroups: cfg.Cgroups,
		FindPod:      func(podID string) error { _, err := cfg.Pods.Pod(podID); return err },
		MarkNotReady: func(podID, reason string) { cfg.Pods.MarkNotReady(podID, reason) }, FindRuntime: m.findRuntime,
	})
	return m, nil
}

// Get returns the container with this id or unique prefix of an id. It returns
// ErrNotFound if there is none, or if its creation has not ended.
func (m *Manager) Get(id string) (*Snapshot, error) {
	c, err := m.find(id)
	if err != nil {
		return nil, err
	}
	return c.snap.Load(), nil
}

// List returns all containers, in any order.
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

// Monitors returns the monitors of all containers, in any order. The monitor of an exited container has usually exited
// as well.
func (m *Manager) Monitors() []proc.Ref {
	m.mu.RLock()
	defer m.mu.RUnlock()
	monitors := make([]proc.Ref, 0, len(m.containers))
	for _, c := range m.containers {
		if _, monitor := c.refs(); monitor != (proc.Ref{}) {
			monitors = append(monitors, monitor)
		}
	}
	return monitors
}

// Holds reports whether there is a container with this full id, including containers in
// their creation and containers whose files cannot be read. Their writable layers are not
// garbage.
func (m *Manager) Holds(id string) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.containers[id] != nil || m.unreadable[id]
}

// find returns a container whose creation has ended.
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

// podContainers returns the containers of a pod, including containers in their creation.
func (m *Manager) podContainers(pod string) []*container {
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

// register adds a container. The container is visible when it has a Snapshot.
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

func (m *Manager) dir(id string) string { return filepath.Join(m.cfg.RunDir, "containers", id) }

// invalid returns an ErrInvalidArgument. The message names the field of the request and
// the rule that the field breaks.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// errWrongState is the error of an operation that the state of the container does not
// allow.
func errWrongState(verb string, s *Snapshot) error {
	return fmt.Errorf("%s container %q: the container is %s: %w", verb, short(s.ID), s.State, errdefs.ErrFailedPrecondition)
}

// short shortens an id for messages.
func short(id string) string { return id[:min(len(id), 12)] }

// ignoreNotFound makes an operation on a container that does not exist successful.
func ignoreNotFound(err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}
