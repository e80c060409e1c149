package network

import (
	"context"

	"github.com/containernetworking/cni/libcni"
	"github.com/criserver/criserver/sandbox/network/podcidr"
)

// current is the Config in force, with the CNI library for its directories. It is immutable.
type current struct {
	Config
	cni *libcni.CNIConfig
}

// cfg returns the Config in force. A function that needs several of its fields calls cfg once.
func (n *Network) cfg() *Config { return &n.current.Load().Config }

// cni returns the CNI library for the Config in force.
func (n *Network) cni() *libcni.CNIConfig { return n.current.Load().cni }

func (n *Network) setConfig(cfg Config) {
	if len(cfg.ConfDirs) == 0 {
		cfg.ConfDirs = []string{"/etc/cni/net.d"}
	}
	if len(cfg.BinDirs) == 0 {
		cfg.BinDirs = []string{"/opt/cni/bin"}
	}
	n.current.Store(&current{cfg, libcni.NewCNIConfigWithCacheDir(cfg.BinDirs, cfg.CacheDir, n.runner)})
}

// CheckConfig returns an error if Update would fail with the Config: if the template is not valid or,
// if the pod CIDR is known, if the template does not yield a network.
func (n *Network) CheckConfig(cfg Config) error {
	if cfg.ConfTemplate == "" {
		return nil
	}
	if list := n.knownPodCIDR(); list != "" {
		ranges, err := podcidr.Parse(list)
		if err == nil {
			_, err = podcidr.Render(cfg.ConfTemplate, ranges, checkConf)
		}
		return err
	}
	return podcidr.CheckTemplate(cfg.ConfTemplate)
}

// Update replaces the Config, except for CacheDir and NoBuiltin. Run then watches the new directories
// and loads the networks in them. If the pod CIDR is known, Update generates the default
// network again. Pods remain attached to the networks that they have.
func (n *Network) Update(ctx context.Context, cfg Config) error {
	before := n.cfg()
	cfg.CacheDir, cfg.NoBuiltin = before.CacheDir, before.NoBuiltin
	n.setConfig(cfg)
	select {
	case n.updates <- struct{}{}:
	default: // the pending update finds the new Config, too
	}
	return n.SetPodCIDR(ctx, n.knownPodCIDR())
}

// knownPodCIDR returns the ranges that the kubelet has sent last, or "".
func (n *Network) knownPodCIDR() string {
	if list := n.lastPodCIDR.Load(); list != nil {
		return *list
	}
	return n.defaultBridge.PodCIDR()
}

// requestReload makes Run load the configuration again.
func (n *Network) requestReload() {
	select {
	case n.reloadRequests <- struct{}{}:
	default:
	}
}
