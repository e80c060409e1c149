package nri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	validator "github.com/containerd/nri/plugins/default-validator/builtin"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// Manager relays events to plugins and what plugins want to the runtime.
//
// One event is relayed at a time, in the order in which they came: plugins
// that count resources rely on it, and the protocol's library has one lock for
// all. turn stands before that lock, so that who waits can give up.
type Manager struct {
	cfg     Config
	nri     *adaptation.Adaptation
	plugins atomic.Int32  // connected and synchronized
	turn    chan struct{} // capacity one: full while an event is relayed
	failed  atomic.Pointer[string]

	making making
	synced chan []*api.ContainerUpdate // what Synchronize brought, for Run
}

// syncedBacklog is how many plugins may be synchronized before the changes that
// the first of them wants are begun.
const syncedBacklog = 64

// New returns a Manager that does nothing until Start.
func New(cfg Config) (*Manager, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, turn: make(chan struct{}, 1), making: newMaking(), synced: make(chan []*api.ContainerUpdate, syncedBacklog)}
	setLog()
	setTimeouts(cfg)
	opts := []adaptation.Option{
		adaptation.WithPluginPath(cfg.PluginDir), adaptation.WithPluginConfigPath(cfg.PluginConfigDir),
		adaptation.WithSocketPath(cfg.Socket), adaptation.WithMetrics(watcher{m}), adaptation.WithDefaultValidator(rules(cfg.Validator)),
	}
	if cfg.Socket == "" {
		opts = append(opts, adaptation.WithDisabledExternalConnections())
	}
	var err error
	quiet.Store(true)
	defer quiet.Store(false)
	if m.nri, err = adaptation.New(cfg.Name, cfg.Version, m.synchronize, m.unsolicited, opts...); err != nil {
		return nil, fmt.Errorf("nri: %w", err)
	}
	return m, nil
}

// Start runs the plugins of the plugin directory and lets others connect. When
// it returns the former are synchronized, and those that failed are reported.
func (m *Manager) Start() error {
	if err := m.prepareSocket(); err != nil {
		return fmt.Errorf("nri: %w", err)
	}
	if err := m.nri.Start(); err != nil {
		return fmt.Errorf("nri: %w", err)
	}
	return nil
}

// Run makes the changes that plugins answer their synchronization with, until
// ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case updates := <-m.synced:
			m.updateAll(ctx, updates, updateTimeout)
		}
	}
}

// Stop takes no more plugins and ends those that Start ran. Connections end with
// the process.
func (m *Manager) Stop() { m.nri.Stop() }

// ErrSocketInUse says that another process serves the socket.
var ErrSocketInUse = errors.New("another process serves the socket")

// SocketInUse says whether somebody takes connections at path. Two runtimes on
// one node have the same default; the library would take the socket away from
// the other.
func SocketInUse(path string) bool {
	c, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// prepareSocket makes the socket's directory, for root alone: who connects can
// run anything on the node.
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
	if st := info.Mode().Perm(); st&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("directory %s of the socket can be written to by others (mode %o)", dir, st)
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("directory %s of the socket: %w", dir, err)
	}
	return nil
}

func rules(r *Rules) *validator.DefaultValidatorConfig {
	if r == nil {
		return nil
	}
	return &validator.DefaultValidatorConfig{
		Enable:                                true,
		RejectOCIHookAdjustment:               r.RejectHooks,
		RejectNamespaceAdjustment:             r.RejectNamespaces,
		RejectSysctlAdjustment:                r.RejectSysctls,
		RejectRuntimeDefaultSeccompAdjustment: slices.Contains(r.RejectSeccomp, SeccompRuntimeDefault),
		RejectCustomSeccompAdjustment:         slices.Contains(r.RejectSeccomp, SeccompLocalhost),
		RejectUnconfinedSeccompAdjustment:     slices.Contains(r.RejectSeccomp, SeccompUnconfined),
		RequiredPlugins:                       r.RequiredPlugins,
		TolerateMissingAnnotation:             r.TolerateMissing,
	}
}

func logOf(ctx context.Context) *logrus.Entry {
	return logrus.WithContext(ctx).WithField("subsystem", "nri")
}
