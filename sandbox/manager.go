package sandbox

import (
	"context"
	"encoding/json"
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
// Order of locks: a pod's operation lock, then mu, then that of retries. mu is
// held for the exchange of the view only. Nothing is waited for, and no file or
// process touched, with mu held.
type Manager struct {
	cfg     Config
	dirs    dirs
	net     *network.Network
	watcher *proc.Watcher // of pauses
	boot    string        // set by Restore

	ops      oplock.Locks // per pod: whoever changes the pod or its record
	runs     flight.Group[string]
	releases flight.Group[struct{}]
	retries  retries
	ports    hostPorts

	view   atomic.Pointer[view]
	events fanout.Fanout[Event]

	mu       sync.Mutex // guards building and the exchange of view
	building map[podspec.Name]*stages
}

// New checks the configuration. Restore must follow before anything else, and
// Run does the work in the background.
func New(cfg Config) (*Manager, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("pod sandboxes: %w", err)
	}
	watcher, err := proc.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("pod sandboxes: %w", err)
	}
	m := &Manager{
		cfg:      cfg,
		dirs:     dirs{cfg.RunDir},
		net:      network.New(cfg.CNI),
		watcher:  watcher,
		runs:     flight.Group[string]{Linger: cfg.Linger},
		releases: flight.Group[struct{}]{Linger: cfg.TeardownTimeout},
		retries:  newRetries(),
		building: make(map[podspec.Name]*stages),
	}
	m.view.Store(newView(map[string]*entry{}))
	return m, nil
}

// Run watches the network configuration and the pauses, and takes down what
// could not be taken down at once, until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.net.Run(ctx) })
	g.Go(func() error { return m.watcher.Run(ctx) })
	g.Go(func() error { m.retries.run(ctx, m.retry); return nil })
	g.Go(func() error { m.checkNetworks(ctx); return nil })
	g.Go(func() error { m.stopOrphanedSlices(ctx); return nil })
	return g.Wait()
}

// Get returns the pod of a full id or a unique prefix. Errors: ErrNotFound, or
// ErrInvalidArgument where a prefix is ambiguous.
func (m *Manager) Get(id string) (*Pod, error) {
	e, err := m.find(id)
	if err != nil {
		return nil, err
	}
	return e.pod, nil
}

// List returns all pods, the oldest first.
func (m *Manager) List() []*Pod { return slices.Clone(m.view.Load().sorted) }

// NetworkStatus returns nil when pods can be attached to the default network.
// Otherwise the error says why they cannot and what to do. It is not nil before
// Run has checked the network.
func (m *Manager) NetworkStatus() error { return m.net.Status() }

// NetworkConf returns the CNI configuration list in use, or nil.
func (m *Manager) NetworkConf() json.RawMessage { return m.net.Conf() }
