package daemon

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/hostcheck"
	"github.com/criserver/criserver/oci/apparmor"
	"github.com/criserver/criserver/oci/runtime"
	"github.com/criserver/criserver/sandbox/network"
)

// unitName is the name of the daemon's systemd unit in the packages and in the documentation.
const unitName = "criserver.service"

// CheckHost checks whether this host can run a daemon with a configuration. It changes nothing,
// and the daemon may run. groups selects groups of checks; without groups, all checks run.
func CheckHost(ctx context.Context, cfg config.Config, groups ...string) ([]hostcheck.Finding, error) {
	return hostcheck.Check(ctx, hostcheck.ThisHost(), hostOptions(cfg), groups...)
}

// hostOptions returns the parts of the host that a daemon with a configuration uses.
func hostOptions(cfg config.Config) hostcheck.Options {
	o := hostcheck.Options{
		Root: cfg.Root, RunDir: cfg.RunDir, Socket: cfg.Socket, StreamAddress: cfg.Streaming.Address,
		CNIConfDirs: cfg.CNI.ConfDirs, CNIBinDirs: cfg.CNI.BinDirs, DefaultNetwork: cfg.CNI.DefaultNetwork,
		DefaultBridge: cfg.CNI.DefaultBridge && cfg.CNI.ConfTemplate == "",
		ParseNetwork: func(file string) (hostcheck.Network, error) {
			d, err := network.Describe(file)
			return hostcheck.Network(d), err
		},
		Runtimes: hostRuntimes(cfg), Flaw: runtime.Vulnerability,
		AppArmorProfile: cfg.Container.AppArmorProfile, OwnAppArmorProfile: cfg.Container.AppArmorProfile == apparmor.DefaultProfile,
		SELinux: cfg.SELinux, SystemdCgroups: cfg.CgroupDriver == config.CgroupDriverSystemd, Unit: unitName,
	}
	if cfg.NRI.Enable && !cfg.NRI.DisableConnections {
		o.NRISocket = cfg.NRI.Socket
	}
	if self, err := os.Executable(); err == nil {
		o.Binary = self
	}
	return o
}

// hostRuntimes returns the runtimes of the configuration, and the built-in ones in the PATH, sorted
// by handler.
func hostRuntimes(cfg config.Config) (runtimes []hostcheck.Runtime) {
	inPath := func(name string) string {
		path, err := exec.LookPath(name)
		if err != nil {
			return ""
		}
		if path, err = filepath.Abs(path); err != nil {
			return ""
		}
		return path
	}
	for name, r := range cfg.Runtimes {
		path := r.Path
		if path == "" {
			path = inPath(name)
		}
		runtimes = append(runtimes, hostcheck.Runtime{Handler: name, Path: path})
	}
	for _, name := range config.BuiltinHandlers {
		if _, configured := cfg.Runtimes[name]; configured {
			continue
		}
		if path := inPath(name); path != "" {
			runtimes = append(runtimes, hostcheck.Runtime{Handler: name, Path: path})
		}
	}
	slices.SortFunc(runtimes, func(a, b hostcheck.Runtime) int { return cmp.Compare(a.Handler, b.Handler) })
	return runtimes
}
