// Package handlers contains the runtime handlers of the daemon: it finds the OCI runtimes, chooses the default handler,
// and probes what each handler supports. The probes run in parallel with the other work of the daemon. After a reload
// of the configuration, only handlers that have changed are probed again.
package handlers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/runtime"
	"github.com/criserver/criserver/oci/trial"
)

// Set contains the runtime handlers: the handlers of the configuration, and the built-in
// handlers whose binaries are in the PATH.
type Set struct {
	runtimes    map[string]*runtime.Runtime // by handler name
	settings    map[string]bundle.Handler   // by handler name, also of former handlers
	probers     map[string]*prober          // by handler name
	defaultName string                      // name of the handler that the empty name stands for
	// former contains the handlers that a reload has removed, by name. Their pods still exist.
	former map[string]*prober
	// added contains the probers of the handlers that are new in this set, by name.
	added map[string]*prober
}

// New returns the handlers, and runs a container to prove that the default handler
// works. The other properties of handlers are probed later, which does not delay the start of the
// daemon. old contains the handlers before a reload, or is nil: handlers that do not change keep
// their probers, and the default handler is tested only if it changes.
func New(ctx context.Context, cfg config.Config, h *Host, builder *oci.Builder, old *Set) (*Set, error) {
	systemd := h.SystemdCgroups
	runtimes, err := configuredRuntimes(cfg, systemd)
	if err != nil {
		return nil, err
	}
	settings, err := readSettings(cfg, h.OCI, builder)
	if err != nil {
		return nil, err
	}
	addBuiltinRuntimes(runtimes, cfg.RunDir, systemd)
	s := merge(runtimes, old)
	s.settings = settings
	for name := range s.former {
		if former, ok := old.settings[name]; ok {
			s.settings[name] = former
		}
	}
	for name, p := range s.added {
		if err := os.MkdirAll(p.runtime.Root, 0o700); err != nil {
			return nil, fmt.Errorf("runtimes.%s.root: %w", name, err)
		}
	}
	if s.keepDefault(cfg.DefaultRuntime, old) {
		return s, nil
	}
	candidates, err := defaultCandidates(cfg.DefaultRuntime, runtimes)
	if err != nil {
		return nil, err
	}
	release, err := h.makeCgroupParent()
	if err != nil {
		return nil, err
	}
	defer release()
	chosen, err := newChooser(cfg.RunDir, h, builder, "--version").Choose(ctx, candidates...)
	if err != nil {
		return nil, err
	}
	s.defaultName = chosen.Name
	return s, nil
}

// configuredRuntimes returns the runtimes of the configuration.
func configuredRuntimes(cfg config.Config, systemd bool) (map[string]*runtime.Runtime, error) {
	runtimes := make(map[string]*runtime.Runtime)
	for name, rt := range cfg.Runtimes {
		path := rt.Path
		if path == "" {
			var err error
			if path, err = exec.LookPath(name); err != nil {
				return nil, fmt.Errorf("runtimes.%s.path: %w", name, err)
			}
		}
		runtimes[name] = &runtime.Runtime{
			Name: name, Path: path, Root: rt.Root, Options: rt.Options, AllowedAnnotations: rt.AllowedAnnotations,
			Guest: rt.Type == config.RuntimeTypeRunsc, SystemdCgroup: systemd, ScopeProperties: systemd,
			NoPivot: rt.NoPivot,
		}
	}
	return runtimes, nil
}

// addBuiltinRuntimes adds the built-in runtimes whose binaries are in the PATH, unless the
// configuration has a handler of the same name.
func addBuiltinRuntimes(runtimes map[string]*runtime.Runtime, runDir string, systemd bool) {
	for _, name := range config.BuiltinHandlers {
		path, err := exec.LookPath(name)
		if err != nil || runtimes[name] != nil {
			continue
		}
		runtimes[name] = &runtime.Runtime{
			Name: name, Path: path, Root: config.RuntimeRoot(runDir, name),
			Guest: config.RuntimeType(name, path) == config.RuntimeTypeRunsc, SystemdCgroup: systemd, ScopeProperties: systemd,
		}
	}
}

// defaultCandidates returns the runtimes of which the first that works becomes the default.
func defaultCandidates(configured string, runtimes map[string]*runtime.Runtime) ([]*runtime.Runtime, error) {
	if configured != "" {
		rt := runtimes[configured]
		if rt == nil {
			return nil, fmt.Errorf("default_runtime: no binary %q is in the PATH, and [runtimes.%s] names none", configured, configured)
		}
		return []*runtime.Runtime{rt}, nil
	}
	var candidates []*runtime.Runtime
	for _, name := range config.DefaultHandlers {
		if rt := runtimes[name]; rt != nil {
			candidates = append(candidates, rt)
		}
	}
	if len(candidates) == 0 {
		return nil, errors.New("default_runtime: neither crun nor runc is in the PATH or in [runtimes]")
	}
	return candidates, nil
}

// newChooser returns the chooser that runs the monitor's binary with an argument in a
// throwaway container.
func newChooser(runDir string, h *Host, builder *oci.Builder, monitorArg string) *trial.Chooser {
	return &trial.Chooser{
		RunDir: runDir, Prober: h.MonitorPath, ProberArgs: []string{monitorArg},
		CgroupParent: h.CgroupParent, Cgroups: h.Cgroups, Builder: builder,
	}
}

// Runtimes returns the runtimes of the handlers, by name.
func (s *Set) Runtimes() map[string]*runtime.Runtime { return s.runtimes }

// Settings returns the settings of the handlers for new containers, by name, also of former handlers.
func (s *Set) Settings() map[string]bundle.Handler { return s.settings }

// Default returns the name of the handler that the empty name stands for.
func (s *Set) Default() string { return s.defaultName }

// Exists reports whether a handler exists. The empty name stands for the default handler.
func (s *Set) Exists(name string) bool { return s.runtime(name) != nil }

// Names returns the sorted names of all handlers.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.runtimes)) }

// RunsGuests reports whether the containers of a pod share a guest kernel. The handler may be a
// former one.
func (s *Set) RunsGuests(handler string) bool {
	p := s.prober(handler)
	return p != nil && p.runtime.Guest
}

// FormerRuntimes returns the runtimes of the handlers that reloads have removed, by name.
func (s *Set) FormerRuntimes() map[string]*runtime.Runtime {
	runtimes := make(map[string]*runtime.Runtime)
	for name, p := range s.former {
		runtimes[name] = p.runtime
	}
	return runtimes
}

// runtime returns the runtime of a handler, or nil if the handler does not exist.
func (s *Set) runtime(name string) *runtime.Runtime { return s.runtimes[s.fullName(name)] }

// prober returns the prober of a handler or of a former handler, or nil if there is none.
func (s *Set) prober(name string) *prober {
	name = s.fullName(name)
	if p := s.probers[name]; p != nil {
		return p
	}
	return s.former[name]
}

func (s *Set) fullName(name string) string {
	if name == "" {
		return s.defaultName
	}
	return name
}

// ConfDirs returns the directories of the CNI configuration of handlers with a default network of
// their own, by handler. The empty name stands for the default handler.
func (s *Set) ConfDirs(configured map[string]config.Runtime) map[string][]string {
	dirs := make(map[string][]string)
	for name, rt := range configured {
		if len(rt.CNIConfDirs) == 0 {
			continue
		}
		dirs[name] = rt.CNIConfDirs
		if name == s.defaultName {
			dirs[""] = rt.CNIConfDirs
		}
	}
	return dirs
}
