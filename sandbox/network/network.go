// Package network attaches pods to networks through CNI plugins. It owns the
// loaded network configuration and the calls of plugins, and keeps no state of
// pods but which attachments there are: what is needed to detach one is handed
// out and taken back.
package network

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
)

// IfName is the name of a pod's interface on the default network.
const IfName = "eth0"

// Config says where CNI configuration and plugins are.
type Config struct {
	// ConfDirs are searched in order; /etc/cni/net.d by default.
	ConfDirs []string
	// BinDirs are where plugins are looked for, in order; /opt/cni/bin by default.
	BinDirs []string
	// DefaultNetwork is the name of the network for pods; by default the first
	// valid one in the order of file names.
	DefaultNetwork string
	// Additional are names of further networks, on which pods may have
	// interfaces.
	Additional []string
	// CacheDir is where results of ADD are kept for DEL. No two daemons may
	// share one.
	CacheDir string
	// NoBuiltin has every plugin do all of its work in a process of its own, also
	// what the daemon knows how to do: the usual bridge with host-local
	// addresses, masquerading and host ports.
	NoBuiltin bool
	// ConfTemplate is the file of a template that makes the default network when
	// the kubelet tells the addresses of pods: see CIDRs. "" for none.
	ConfTemplate string
}

// Network is the networks of pods.
type Network struct {
	cfg     Config
	cni     *libcni.CNIConfig
	gate    gate
	suspect chan struct{} // capacity one: a collection is wanted

	files       tableFiles
	ports       portTables
	masquerades masqTables
	tables      chan struct{} // capacity one: the tables are not as they shall be
	// tablesKnown says that a configuration was loaded, so that it is known which
	// tables nobody needs.
	tablesKnown atomic.Bool

	loaded atomic.Pointer[loaded]
	// answer is the last answer of the plugins to STATUS; nil before the first answer.
	answer atomic.Pointer[answer]
	// template makes writers of the generated file wait for each other. It is not
	// a mu: it is held while files are written, by nobody else's calls.
	template sync.Mutex
}

// loaded is what was found in the configuration directories. One of list, the
// default network, and err is set.
type loaded struct {
	read       bool
	list       *list
	additional map[string]*list // by name, without the default one
	err        error
	// settled is closed when Run has finished the first round of checks of this
	// configuration, whatever their result is.
	settled chan struct{}
}

// answer is what the plugins of a configuration answered to STATUS.
type answer struct {
	of  *loaded
	err error // nil when the plugins can attach pods
}

// New returns a Network with no configuration loaded.
func New(cfg Config) *Network {
	if len(cfg.ConfDirs) == 0 {
		cfg.ConfDirs = []string{"/etc/cni/net.d"}
	}
	if len(cfg.BinDirs) == 0 {
		cfg.BinDirs = []string{"/opt/cni/bin"}
	}
	files := tableFiles{filepath.Join(cmp.Or(cfg.CacheDir, libcni.CacheDir), "tables")}
	n := &Network{
		cfg:     cfg,
		cni:     libcni.NewCNIConfigWithCacheDir(cfg.BinDirs, cfg.CacheDir, &runner{builtin: !cfg.NoBuiltin}),
		suspect: make(chan struct{}, 1),

		files:       files,
		ports:       portTables{files: files},
		masquerades: masqTables{files: files},
		tables:      make(chan struct{}, 1),
	}
	n.loaded.Store(&loaded{err: fmt.Errorf("CNI configuration is not loaded yet: %w", errdefs.ErrUnavailable), settled: make(chan struct{})})
	return n
}

// Status returns nil when pods can be attached. Otherwise the error says why they
// cannot and what to do about it. A network is not ready before its plugins have
// answered STATUS.
func (n *Network) Status() error {
	l := n.loaded.Load()
	if l.err != nil {
		return l.err
	}
	if err := n.findPlugins(l.list); err != nil {
		return err
	}
	a := n.answer.Load()
	if a == nil || a.of != l {
		return fmt.Errorf("CNI network %q is not ready yet: its plugins have not answered STATUS: %w", l.list.conf.Name, errdefs.ErrUnavailable)
	}
	return a.err
}

// Await waits until Run has loaded the configuration and has asked the plugins
// for their status, so that the result of Status does not depend on the speed of
// the machine. The error is the cause of the end of ctx.
func (n *Network) Await(ctx context.Context) error {
	for {
		l := n.loaded.Load()
		select {
		case <-l.settled:
		case <-ctx.Done():
			return fmt.Errorf("wait for the checks of the CNI network: %w", context.Cause(ctx))
		}
		if n.loaded.Load() == l {
			return nil
		}
	}
}

// Conf returns the configuration list of the default network, JSON, or nil.
func (n *Network) Conf() json.RawMessage {
	if l := n.loaded.Load(); l.list != nil {
		return l.list.raw
	}
	return nil
}
