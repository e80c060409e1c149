package daemon

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/daemon/handlers"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/host"
	"github.com/criserver/criserver/oci/selinux"
	"github.com/criserver/criserver/sandbox"
)

// hostInfo describes the host, and contains the defaults that depend on the host.
type hostInfo struct {
	cgroups       *cgroup.Tree
	oci           oci.Host
	seLinux       *selinux.Labels // nil if containers have no SELinux labels
	cgroupDriver  sandbox.CgroupDriver
	cgroupParent  string
	monitorCgroup string
	daemonUnit    string // name of the daemon's systemd service, "" if the daemon is in no service
	monitorPath   string // path of the monitor's binary
}

// inspectHost inspects the host and fills in the configuration keys whose defaults depend on
// the host.
func inspectHost(cfg config.Config) (*hostInfo, error) {
	h := &hostInfo{
		cgroupDriver: sandbox.CgroupDriver(cfg.CgroupDriver), cgroupParent: cfg.CgroupParent, monitorCgroup: cfg.Monitor.Cgroup,
	}
	var err error
	if h.monitorPath, err = findMonitor(cfg.Monitor.Path); err != nil {
		return nil, err
	}
	if h.cgroups, err = cgroup.Open(); err != nil {
		return nil, err
	}
	if h.oci, err = host.Detect(h.cgroups); err != nil {
		return nil, err
	}
	h.oci.SELinux = h.oci.SELinux && cfg.SELinux
	if h.oci.SELinux {
		h.seLinux = selinux.New()
	}
	return h, h.placeCgroups()
}

// placeCgroups chooses the cgroup driver and the cgroups of pods and monitors, unless the
// configuration does.
func (h *hostInfo) placeCgroups() error {
	if h.cgroupDriver == config.CgroupDriverAuto {
		h.cgroupDriver = sandbox.Cgroupfs
		if h.cgroups.V2() && bootedWithSystemd() {
			h.cgroupDriver = sandbox.Systemd
		}
	}
	if h.cgroupParent == "" {
		h.cgroupParent = config.DefaultCgroupParent[string(h.cgroupDriver)]
	} else if err := config.CheckCgroupParent(string(h.cgroupDriver), h.cgroupParent); err != nil {
		// config.Load accepts paths and slices for the driver "auto".
		return fmt.Errorf("cgroup_parent: %w", err)
	}
	if h.cgroupDriver == sandbox.Systemd {
		return h.placeCgroupsUnderSystemd()
	}
	if h.monitorCgroup == "" {
		h.monitorCgroup = h.cgroupParent + "-monitors"
	}
	return nil
}

// placeCgroupsUnderSystemd finds the daemon's unit, and places the cgroup of the monitors in
// it. docs/adr/0002-monitor-cgroup.md gives the reasons.
func (h *hostInfo) placeCgroupsUnderSystemd() error {
	if !h.cgroups.V2() {
		return errors.New("cgroup_driver: systemd needs the unified cgroup hierarchy, which this host does not have")
	}
	daemonCgroup, err := h.cgroups.ProcessCgroup(os.Getpid())
	if err != nil {
		return err
	}
	unitCgroup := cgroup.UnitOf(daemonCgroup)
	if strings.HasSuffix(unitCgroup, ".service") {
		h.daemonUnit = path.Base(unitCgroup)
	}
	if h.monitorCgroup == "" {
		h.monitorCgroup = systemdMonitorCgroup(unitCgroup, h.cgroupParent)
	}
	return nil
}

// systemdMonitorCgroup returns the cgroup of the monitors of a daemon whose unit has the
// cgroup unitCgroup. If the daemon is in no unit, as in a container, unitCgroup is empty,
// and the monitors get a cgroup at the top of the hierarchy that is named after the
// cgroup parent of the pods.
func systemdMonitorCgroup(unitCgroup, cgroupParent string) string {
	if unitCgroup == "" {
		return "/" + strings.TrimSuffix(path.Base(cgroupParent), ".slice") + "-monitors"
	}
	return path.Join(unitCgroup, "monitors")
}

// bootedWithSystemd reports whether systemd is the init process. The check is the check of
// sd_booted(3).
func bootedWithSystemd() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// handlers returns the part of the host that runtime handlers use.
func (h *hostInfo) handlers() *handlers.Host {
	return &handlers.Host{
		OCI: h.oci, Cgroups: h.cgroups, CgroupParent: h.cgroupParent, SystemdCgroups: h.cgroupDriver == sandbox.Systemd, MonitorPath: h.monitorPath,
	}
}

// podLabels returns the SELinux labels for sandbox.Config. Without SELinux it returns a nil
// interface, which is not the same as an interface that contains a nil pointer.
func (h *hostInfo) podLabels() sandbox.Labels {
	if h.seLinux == nil {
		return nil
	}
	return h.seLinux
}

// containerLabels returns the SELinux labels for container.Config, as podLabels does for pods.
func (h *hostInfo) containerLabels() bundle.Labeler {
	if h.seLinux == nil {
		return nil
	}
	return h.seLinux
}

// findMonitor returns the path of the monitor's binary: the configured path, or the first of
// config.MonitorPaths that exists.
func findMonitor(configured string) (string, error) {
	candidates := []string{configured}
	if configured == "" {
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

// monitorCandidates returns config.MonitorPaths for a daemon in binDir.
func monitorCandidates(binDir string) []string {
	var candidates []string
	for _, p := range config.MonitorPaths {
		if !filepath.IsAbs(p) {
			p = filepath.Join(binDir, p)
		}
		candidates = append(candidates, p)
	}
	return candidates
}
