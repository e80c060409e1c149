package network

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
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
		cidrs, err := parseCIDRs(list)
		if err == nil {
			_, err = render(cfg.ConfTemplate, cidrs)
		}
		return err
	}
	_, err := parseTemplate(cfg.ConfTemplate)
	return err
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
	b, err := os.ReadFile(n.podCIDRFile())
	if err != nil {
		return ""
	}
	return string(b)
}

// parseTemplate reads and parses the template for the default network.
func parseTemplate(file string) (*template.Template, error) {
	info, err := os.Stat(file)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxConfSize) {
		err = fmt.Errorf("not a regular file of at most %d bytes", maxConfSize)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, invalidTemplate(file, err)
	}
	t, err := template.New(filepath.Base(file)).Parse(string(text))
	if err != nil {
		return nil, invalidTemplate(file, err)
	}
	return t, nil
}

func invalidTemplate(file string, err error) error {
	return fmt.Errorf("cni.conf_template %s: %w: %w", file, err, errdefs.ErrFailedPrecondition)
}
