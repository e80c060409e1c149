package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/sandbox"
)

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

// handlersOf are the handlers of the configuration, and the well-known ones that
// are in the PATH.
func handlersOf(cfg config.Config, systemd bool) (map[string]*oci.Runtime, error) {
	handlers := make(map[string]*oci.Runtime)
	for name, rt := range cfg.Runtimes {
		path := rt.Path
		if path == "" {
			var err error
			if path, err = exec.LookPath(name); err != nil {
				return nil, fmt.Errorf("runtimes.%s.path: %w", name, err)
			}
		}
		handlers[name] = &oci.Runtime{
			Name: name, Path: path, Root: rt.Root, SystemdCgroup: systemd, Options: rt.Options,
			Guest: rt.Type == config.RuntimeTypeRunsc, AllowedAnnotations: rt.AllowedAnnotations, ScopeProperties: systemd,
		}
	}
	for _, name := range config.BuiltinHandlers {
		path, err := exec.LookPath(name)
		if err == nil && handlers[name] == nil {
			handlers[name] = &oci.Runtime{
				Name: name, Path: path, Root: filepath.Join(cfg.RunDir, "runtimes", name), SystemdCgroup: systemd, Guest: name == "runsc",
				ScopeProperties: systemd,
			}
		}
	}
	return handlers, nil
}

// hasGuests says whether the pods of a handler have kernels of their own.
func (r *runtimes) hasGuests(handler string) bool {
	if handler == "" {
		handler = r.defaultName
	}
	rt := r.byName[handler]
	return rt != nil && rt.Guest
}

// mountSetattr says whether the kernel has mount_setattr(2), of Linux 5.12, by
// which runtimes make whole trees of mounts read-only.
func mountSetattr() bool {
	return !errors.Is(unix.MountSetattr(-1, "", 0, &unix.MountAttr{}), unix.ENOSYS)
}

// usableMountOptions leaves out of what a runtime knows what the kernel cannot
// do. The result is not nil: it is known what it can do.
func usableMountOptions(known []string) []string {
	usable := append([]string{}, known...)
	return slices.DeleteFunc(usable, func(o string) bool { return o == "rro" && !mountSetattr() })
}
