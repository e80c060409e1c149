package daemon

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/selinux"
	"github.com/criserver/criserver/sandbox"
)

// host is what was found out about the machine, with the defaults that follow
// from it.
type host struct {
	cgroups       *cgroup.Tree
	facts         oci.Host
	labels        *selinux.Labels // nil for none
	driver        sandbox.CgroupDriver
	cgroupParent  string
	monitorCgroup string
	unit          string // the systemd service that the daemon runs in, "" for none
	monitor       string // the monitor's binary
}

func detectHost(cfg config.Config) (*host, error) {
	h := &host{driver: sandbox.CgroupDriver(cfg.CgroupDriver), cgroupParent: cfg.CgroupParent, monitorCgroup: cfg.Monitor.Cgroup}
	var err error
	if h.monitor, err = findMonitor(cfg); err != nil {
		return nil, err
	}
	if h.cgroups, err = cgroup.Open(); err != nil {
		return nil, err
	}
	if h.facts, err = oci.DetectHost(h.cgroups); err != nil {
		return nil, err
	}
	h.labels = seLinux(cfg, &h.facts)
	if cfg.CgroupDriver == "auto" {
		h.driver = sandbox.Cgroupfs
		if h.cgroups.V2() && underSystemd() {
			h.driver = sandbox.Systemd
		}
	}
	if h.cgroupParent != "" { // the driver can have been auto
		if err := config.CheckCgroupParent(string(h.driver), h.cgroupParent); err != nil {
			return nil, fmt.Errorf("cgroup_parent: %w", err)
		}
	}
	if h.driver == sandbox.Systemd {
		return h, h.underSystemd()
	}
	if h.cgroupParent == "" {
		h.cgroupParent = "/criserver"
	}
	if h.monitorCgroup == "" {
		h.monitorCgroup = h.cgroupParent + "-monitors"
	}
	return h, nil
}

// underSystemd is the check that sd_booted(3) makes.
func underSystemd() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// underSystemd sets the defaults of the systemd driver. See
// docs/adr/0002-monitor-cgroup.md for the place of the monitors.
func (h *host) underSystemd() error {
	if !h.cgroups.V2() {
		return errors.New("cgroup_driver: systemd needs the unified cgroup hierarchy, which this machine does not have")
	}
	if h.cgroupParent == "" {
		h.cgroupParent = "criserver.slice"
	}
	own, err := h.cgroups.Of(os.Getpid())
	if err != nil {
		return err
	}
	unit := cgroup.UnitOf(own)
	if strings.HasSuffix(unit, ".service") {
		h.unit = path.Base(unit)
	}
	if h.monitorCgroup == "" {
		h.monitorCgroup = monitorsBelow(unit, h.cgroupParent)
	}
	return nil
}

// monitorsBelow returns the cgroup of the monitors for a daemon in the cgroup of
// a unit. A daemon that is in no unit, as in a container, gets a cgroup at the
// top of the hierarchy, named after the parent of its pods.
func monitorsBelow(unit, parent string) string {
	if unit == "" {
		return "/" + strings.TrimSuffix(path.Base(parent), ".slice") + "-monitors"
	}
	return path.Join(unit, "monitors")
}

// findMonitor returns the path of the monitor's binary: the configured path, or
// the first executable among monitorCandidates.
func findMonitor(cfg config.Config) (string, error) {
	candidates := []string{cfg.Monitor.Path}
	if cfg.Monitor.Path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		candidates = monitorCandidates(filepath.Dir(self))
	}
	if found := firstExecutable(candidates); found != "" {
		return found, nil
	}
	return "", fmt.Errorf("monitor.path: no executable monitor at %v", candidates)
}

// firstExecutable returns the first path that is an executable file, or "".
func firstExecutable(paths []string) string {
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// monitorCandidates lists where the monitor of a daemon in binDir may be. The
// libexec directory beside binDir comes first: another program of the name
// conmon, which distributions install for Podman and CRI-O, may be in binDir.
func monitorCandidates(binDir string) []string {
	return []string{
		filepath.Join(filepath.Dir(binDir), "libexec", "criserver", "conmon"),
		filepath.Join(binDir, "conmon"),
		"/usr/libexec/criserver/conmon",
	}
}
