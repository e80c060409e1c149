// Package network attaches pods to networks by means of CNI plugins. It owns the loaded network
// configuration, the calls of plugins, and the decision which work the daemon does in place of the
// plugins. Package nat owns the nftables tables for masquerading and host ports, and package defaultbridge the bridge
// of a host without a configuration. Of the pods package
// network knows only the attachments: the caller records what Detach needs, and passes it to Detach.
package network

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/criserver/criserver/sandbox/network/defaultbridge"
	"github.com/criserver/criserver/sandbox/network/nat"
)

// IfName is the name of the interface of a pod on the default network.
const IfName = "eth0"

// Config configures a Network.
type Config struct {
	// ConfDirs are the directories of the CNI configuration, in the order of the search. The default is
	// /etc/cni/net.d.
	ConfDirs []string
	// BinDirs are the directories of the CNI plugins, in the order of the search. The default is /opt/cni/bin.
	BinDirs []string
	// DefaultNetwork is the name of the network of all pods. The default is the first valid network in the order of
	// the file names.
	DefaultNetwork string
	// Additional are the names of further networks that pods may ask for.
	Additional []string
	// HandlerConfDirs are the directories of the CNI configuration for runtime handlers whose pods have a default network
	// of their own, by handler.
	HandlerConfDirs map[string][]string
	// CacheDir is the directory in which the CNI library keeps the results of ADD for DEL. Two daemons must not use
	// the same directory.
	CacheDir string
	// NoBuiltin makes the daemon execute the plugins for all work, including the work that the daemon can do itself:
	// the usual bridge with host-local addresses, masquerading and host ports.
	NoBuiltin bool
	// ConfTemplate is the file of the template for the default network, which the daemon executes when the kubelet
	// sends the pod CIDR: see podcidr.Data. "" means that there is no template.
	ConfTemplate string
	// DefaultBridge makes the daemon attach pods to a separate bridge while ConfDirs contain no network, unless
	// DefaultNetwork or ConfTemplate is set. It keeps its
	// record and its leases in CacheDir.
	DefaultBridge bool
}

// Network manages the networks of pods.
type Network struct {
	current     atomic.Pointer[current]
	runner      *runner
	attachments attachments
	// defaultBridge is set also if pods use another network.
	defaultBridge *defaultbridge.Store
	gcRequests    chan struct{} // capacity 1
	// reloadRequests make Run load the configuration although no file has changed. The capacity is 1.
	reloadRequests chan struct{}
	// updates make Run watch and load the directories of a new Config. The capacity is 1.
	updates chan struct{}

	files             nat.Files // of the tables of ports and masquerades
	ports             *nat.HostPortTables
	masquerades       *nat.MasqueradeTables
	reconcileRequests chan struct{} // capacity 1
	// confLoaded says that a configuration has been loaded. Before that, the daemon does not know which tables are
	// unused.
	confLoaded atomic.Bool

	loaded atomic.Pointer[loaded]
	// answer is the last answer of the plugins to STATUS; nil before the first answer.
	answer atomic.Pointer[statusAnswer]
	// podCIDR serializes calls of SetPodCIDR. It is held while files are written; no other method locks it.
	podCIDR sync.Mutex
	// lastPodCIDR is the last valid argument of SetPodCIDR, or nil.
	lastPodCIDR atomic.Pointer[string]
}

// loaded is the content of the configuration directories. Either list or err is set.
type loaded struct {
	read       bool
	list       *list            // the default network
	additional map[string]*list // the additional networks by name
	handlers   map[string]handlerNetwork
	err        error // the reason why there is no default network
	empty      bool  // the directories have no configuration file, not even an invalid one
	retry      bool  // err may disappear although no file changes
	// checked is closed when Run has finished the first checks of this configuration, also if they failed.
	checked chan struct{}
}

// New returns a Network that has not loaded a configuration.
func New(cfg Config) *Network {
	files := nat.Files{Dir: filepath.Join(cmp.Or(cfg.CacheDir, libcni.CacheDir), "tables")}
	n := &Network{
		runner:     &runner{builtin: !cfg.NoBuiltin},
		gcRequests: make(chan struct{}, 1),

		reloadRequests: make(chan struct{}, 1),
		updates:        make(chan struct{}, 1),

		files:             files,
		ports:             nat.NewHostPortTables(files),
		masquerades:       nat.NewMasqueradeTables(files),
		reconcileRequests: make(chan struct{}, 1),
	}
	n.defaultBridge = defaultbridge.New(filepath.Join(cmp.Or(cfg.CacheDir, libcni.CacheDir), "default-bridge"), &n.attachments)
	n.setConfig(cfg)
	n.loaded.Store(&loaded{err: fmt.Errorf("CNI configuration is not loaded yet: %w", errdefs.ErrUnavailable), checked: make(chan struct{})})
	return n
}

// Conf returns the JSON of the default network, or nil if there is no default network.
func (n *Network) Conf() json.RawMessage {
	if l := n.loaded.Load(); l.list != nil {
		return l.list.raw
	}
	return nil
}
