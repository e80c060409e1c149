package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/criserver/criserver/internal/fanout"
	"github.com/criserver/criserver/internal/flight"
	"github.com/criserver/criserver/internal/oplock"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podspec"
	"golang.org/x/sync/errgroup"
)

// Manager runs, stops and removes pod sandboxes.
//
// Lock order: the operation lock of a pod, then mu, then the mutex of retries. mu is held only
// while the view is exchanged or building is accessed: no code waits, and no code accesses a file
// or a process, while mu is held.
type Manager struct {
	cfg      Config // without the settings
	settings atomic.Pointer[Settings]

	dirs    dirs
	net     *network.Network
	watcher *proc.Watcher // of pauses
	boot    string        // boot id, set by Recover

	ops      oplock.Locks           // one lock per pod, for changes of the pod and of its record
	runs     flight.Group[string]   // creations, by name
	releases flight.Group[struct{}] // releases, by id
	retries  retries
	ports    hostPorts

	view   atomic.Pointer[view]
	events fanout.Fanout[Event]

	mu       sync.Mutex // guards building and the exchange of view
	building map[podspec.Name]*stages
}

// New returns a Manager after it has checked the configuration. The caller must call Recover before any other method,
// and Run for the work in the background.
func New(cfg Config) (*Manager, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("pod sandboxes: %w", err)
	}
	watcher, err := proc.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("pod sandboxes: %w", err)
	}
	settings := cfg.Settings
	cfg.Settings = Settings{}
	m := &Manager{
		cfg:      cfg,
		dirs:     dirs{cfg.RunDir},
		net:      network.New(settings.CNI),
		watcher:  watcher,
		runs:     flight.Group[string]{Linger: cfg.Linger},
		releases: flight.Group[struct{}]{Linger: cfg.TeardownTimeout},
		retries:  newRetries(),
		building: make(map[podspec.Name]*stages),
	}
	m.settings.Store(&settings)
	m.view.Store(newView(map[string]*entry{}))
	return m, nil
}

// Run watches the network configuration and the pauses, and retries failed teardowns, until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.net.Run(ctx) })
	g.Go(func() error { return m.watcher.Run(ctx) })
	g.Go(func() error { m.retries.run(ctx, m.retry); return nil })
	g.Go(func() error { m.checkNetworks(ctx); return nil })
	g.Go(func() error { m.stopOrphanedSlices(ctx); return nil })
	return g.Wait()
}

// Get returns the pod with an id or with a unique prefix of an id. Errors: ErrNotFound, or ErrInvalidArgument for an
// ambiguous prefix.
func (m *Manager) Get(id string) (*Pod, error) {
	e, err := m.find(id)
	if err != nil {
		return nil, err
	}
	return e.pod, nil
}

// List returns all pods, oldest first.
func (m *Manager) List() []*Pod { return slices.Clone(m.view.Load().sorted) }

// NetworkStatus returns nil if pods can be attached to the default network. Otherwise the error
// has the reason and the remedy. NetworkStatus returns an error until Run has
// checked the network.
func (m *Manager) NetworkStatus() error { return m.net.Status() }

// NetworkInfo describes the default network.
func (m *Manager) NetworkInfo() network.Info { return m.net.Info() }

// NetworkReason returns the reason of the error of NetworkStatus, one of NetworkReasons, or "" if there is no error.
func (m *Manager) NetworkReason() string { return m.net.Reason() }

// NetworkReasons returns all reasons of NetworkReason.
func NetworkReasons() []string { return network.Reasons() }

// DefaultBridge returns the bridge to which the daemon attaches pods because no CNI network is configured, or nil.
func (m *Manager) DefaultBridge() *network.DefaultBridge { return m.net.DefaultBridge() }

// RemoveNetworks deletes the default bridge and the nftables tables that no pod uses. The caller calls RemoveNetworks
// after Run has returned. The next daemon creates both again.
func (m *Manager) RemoveNetworks(ctx context.Context) error {
	err := m.net.RemoveDefaultBridge(ctx)
	if err != nil {
		err = fmt.Errorf("delete the default bridge: %w", err)
	}
	return errors.Join(err, m.net.RemoveTables(ctx))
}

// HandlerNetworks returns the networks of the runtime handlers with a default network of their own, by handler.
func (m *Manager) HandlerNetworks() map[string]network.HandlerNetwork { return m.net.HandlerNetworks() }

// NetworkConf returns the CNI configuration list in use, or nil.
func (m *Manager) NetworkConf() json.RawMessage { return m.net.Conf() }
