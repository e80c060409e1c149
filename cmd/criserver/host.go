package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go/features"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/container"
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

// runtimes are the runtime handlers.
type runtimes struct {
	byName      map[string]*oci.Runtime
	defaultName string
	builder     *oci.Builder
	appArmor    container.AppArmor // nil where the machine has none
	probers     map[string]*prober // by the name of the handler
}

func (r *runtimes) known(name string) bool { return name == "" || r.byName[name] != nil }

func (r *runtimes) names() []string {
	names := make([]string, 0, len(r.byName))
	for n := range r.byName {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// chooseRuntimes collects the handlers: those of the configuration and the
// well-known ones in the PATH. The default is proved to work. All other probes
// run later, beside the daemon's work.
func chooseRuntimes(ctx context.Context, cfg config.Config, h *host) (*runtimes, error) {
	r := &runtimes{defaultName: cfg.DefaultRuntime, probers: make(map[string]*prober)}
	profile, profiles, err := prepareAppArmor(ctx, cfg, h.facts)
	if err != nil {
		return nil, err
	}
	defaults, err := containerDefaults(cfg, h.facts, profile)
	if err != nil {
		return nil, err
	}
	r.builder, r.appArmor = oci.NewBuilder(h.facts, defaults), profiles
	if r.byName, err = handlersOf(cfg, h.driver == sandbox.Systemd); err != nil {
		return nil, err
	}
	for name, rt := range r.byName {
		if err := os.MkdirAll(rt.Root, 0o700); err != nil {
			return nil, err
		}
		r.probers[name] = &prober{rt: rt, first: make(chan struct{})}
	}
	if err := r.chooseDefault(ctx, cfg, h); err != nil {
		return nil, err
	}
	return r, nil
}

// chooseDefault takes the first handler that really runs something.
func (r *runtimes) chooseDefault(ctx context.Context, cfg config.Config, h *host) error {
	var candidates []*oci.Runtime
	for _, name := range []string{"crun", "runc"} {
		if rt := r.byName[name]; rt != nil && r.defaultName == "" {
			candidates = append(candidates, rt)
		}
	}
	if r.defaultName != "" {
		rt := r.byName[r.defaultName]
		if rt == nil {
			return fmt.Errorf("default_runtime: no binary %q is in the PATH and [runtimes.%s] names none", r.defaultName, r.defaultName)
		}
		candidates = append(candidates, rt)
	}
	if len(candidates) == 0 {
		return errors.New("default_runtime: neither crun nor runc is in the PATH or in [runtimes]")
	}
	parent := h.cgroupParent
	if h.driver != sandbox.Systemd {
		if err := h.cgroups.Make(parent); err != nil {
			return err
		}
		defer h.cgroups.Release(parent)
	}
	c := &oci.Chooser{RunDir: cfg.RunDir, Prober: h.monitor, ProberArgs: []string{"--version"}, CgroupParent: parent, Cgroups: h.cgroups, Builder: r.builder}
	rt, err := c.Choose(ctx, candidates...)
	if err != nil {
		return err
	}
	r.defaultName = rt.Name
	return nil
}

func handlerFeatures(f *features.Features) *cri.RuntimeHandlerFeatures {
	if f == nil {
		return &cri.RuntimeHandlerFeatures{}
	}
	return &cri.RuntimeHandlerFeatures{
		RecursiveReadOnlyMounts: slices.Contains(f.MountOptions, "rro") && mountSetattr(),
	}
}

// statusInfo is what a verbose Status adds.
func statusInfo(cfg config.Config, h *host, r *runtimes) map[string]string {
	b, err := json.Marshal(map[string]any{
		"root": cfg.Root, "runDir": cfg.RunDir, "cgroupDriver": h.driver, "cgroupV2": h.cgroups.V2(), "cgroupParent": h.cgroupParent,
		"defaultRuntime": r.defaultName, "runtimes": r.info(), "monitor": h.monitor, "monitorCgroup": h.monitorCgroup,
		"seccomp": h.facts.Seccomp, "appArmor": h.facts.AppArmor, "appArmorProfile": r.builder.DefaultAppArmorProfile(), "seLinux": h.facts.SELinux,
		"cdiSpecDirs": cfg.Container.CDISpecDirs, "cniConfDirs": cfg.CNI.ConfDirs, "cniBinDirs": cfg.CNI.BinDirs,
	})
	if err != nil {
		return nil
	}
	return map[string]string{"config": string(b)}
}
