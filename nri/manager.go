package nri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// Manager sends events to plugins, and passes the changes of plugins to the runtime.
//
// It sends one event at a time, in the order of the calls, because plugins that count
// resources depend on the order, and because the NRI library has one lock for all events.
// Callers wait for callSlot and not for the lock of the library, so that they can give up.
type Manager struct {
	cfg        Config
	nri        *adaptation.Adaptation
	plugins    atomic.Int32           // number of plugins that are connected and synchronized
	callSlot   chan struct{}          // capacity 1; full while an event is sent
	failedCall atomic.Pointer[string] // plugin and operation of the last call that failed

	pending     pendingObjects
	syncUpdates chan []*api.ContainerUpdate // updates from synchronizations, for Run
}

// syncUpdatesBacklog is the number of plugins that may be synchronized before Run applies the
// updates of the first plugin.
const syncUpdatesBacklog = 64

// New returns a Manager. It does nothing until Start is called.
func New(cfg Config) (*Manager, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, callSlot: make(chan struct{}, 1), pending: newPendingObjects(), syncUpdates: make(chan []*api.ContainerUpdate, syncUpdatesBacklog)}
	installLogger()
	setTimeouts(cfg)
	opts := []adaptation.Option{
		adaptation.WithPluginPath(cfg.PluginDir), adaptation.WithPluginConfigPath(cfg.PluginConfigDir),
		adaptation.WithSocketPath(cfg.Socket), adaptation.WithMetrics(pluginMetrics{m}), adaptation.WithDefaultValidator(cfg.Validator.validatorConfig()),
	}
	if cfg.Socket == "" {
		opts = append(opts, adaptation.WithDisabledExternalConnections())
	}
	var err error
	suppressLog.Store(true)
	defer suppressLog.Store(false)
	if m.nri, err = adaptation.New(cfg.Name, cfg.Version, m.synchronize, m.handleUnsolicitedUpdates, opts...); err != nil {
		return nil, fmt.Errorf("nri: %w", err)
	}
	return m, nil
}

// Start starts and synchronizes the plugins of the plugin directory, and opens the socket for
// other plugins. It logs the plugins that failed to start.
func (m *Manager) Start() error {
	if err := m.prepareSocket(); err != nil {
		return fmt.Errorf("nri: %w", err)
	}
	if err := m.nri.Start(); err != nil {
		return fmt.Errorf("nri: %w", err)
	}
	return nil
}

// Run applies the updates that plugins return from their synchronization, until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case updates := <-m.syncUpdates:
			m.applyUpdates(ctx, updates, updateTimeout)
		}
	}
}

// Stop closes the socket and stops the plugins that Start started. The connections of other
// plugins close when the process exits.
func (m *Manager) Stop() { m.nri.Stop() }

// ErrSocketInUse means that another process serves the socket.
var ErrSocketInUse = errors.New("another process serves the socket")

// SocketInUse reports whether a process serves the socket. All runtimes of a node have the same
// default path, and the NRI library would replace the socket of another runtime.
func SocketInUse(path string) bool {
	c, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// prepareSocket creates the directory of the socket with permissions for root only, because a
// plugin can run anything on the node.
func (m *Manager) prepareSocket() error {
	if m.cfg.Socket == "" {
		return nil
	}
	if SocketInUse(m.cfg.Socket) {
		return fmt.Errorf("%s: %w", m.cfg.Socket, ErrSocketInUse)
	}
	dir := filepath.Dir(m.cfg.Socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("directory %s of the socket is writable by other users (mode %o)", dir, perm)
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("directory %s of the socket: %w", dir, err)
	}
	return nil
}

func logOf(ctx context.Context) *logrus.Entry {
	return logrus.WithContext(ctx).WithField("subsystem", "nri")
}
