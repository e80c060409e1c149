package container

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/oci/runtime"
)

// Settings are the settings of a Manager that Update can replace while the Manager runs. A request
// uses the settings that are in force when it begins. A container keeps the OCI runtime that it was
// created with, because its record contains a copy.
type Settings struct {
	// Settings are the settings for the OCI configs of the containers.
	bundle.Settings
	// Runtimes are the OCI runtimes by handler name. DefaultRuntime is the name of the
	// handler that the empty handler name stands for.
	Runtimes       map[string]*runtime.Runtime
	DefaultRuntime string
	// FormerRuntimes are the runtimes of handlers that an Update has removed. New containers in
	// existing pods of such a handler use them.
	FormerRuntimes map[string]*runtime.Runtime
	// Handlers are the settings of the handlers that have any, by handler name, also of former
	// handlers.
	Handlers map[string]bundle.Handler
	// MountOptions returns the mount options that the runtime of a handler supports, or nil
	// if the runtime does not report them.
	MountOptions func(handler string) []string
	// UserNamespaces returns why a handler does not support user namespaces and mounts with
	// mapped ids, or nil if it does. The function is nil if this is unknown.
	UserNamespaces func(handler string) error
	// IgnoreImageVolumes ignores the volumes that images declare.
	IgnoreImageVolumes bool
	// LogSizeMax is the maximum size of a log in bytes, or 0 for no limit.
	LogSizeMax int64
}

// Update replaces the settings for requests that begin after it. It returns ErrInvalidArgument,
// and changes nothing, if the default runtime does not exist.
func (m *Manager) Update(s Settings) error {
	if err := s.check(); err != nil {
		return err
	}
	m.settings.Store(&s)
	return nil
}

func (s *Settings) check() error {
	if s.Runtimes[s.DefaultRuntime] == nil {
		return fmt.Errorf("default runtime %q is not configured: %w", s.DefaultRuntime, errdefs.ErrInvalidArgument)
	}
	return nil
}

// runtime returns the OCI runtime for a new container in a pod. A pod that exists can have a
// handler that is no longer configured. Its new containers then get the former runtime of the
// handler or, after a restart of the daemon, the runtime of another container in the pod. A pod
// with a guest keeps the runtime of the guest, which may differ from the configured one.
func (m *Manager) runtime(s *Settings, pod Pod) (*runtime.Runtime, error) {
	handler := cmp.Or(pod.RuntimeHandler, s.DefaultRuntime)
	r := s.Runtimes[handler]
	if r == nil {
		r = s.FormerRuntimes[handler]
	}
	if r == nil {
		r = m.runtimeInPod(pod.ID, handler)
	}
	if r == nil {
		return nil, fmt.Errorf("runtime handler %q is not configured: %w", handler, errdefs.ErrInvalidArgument)
	}
	if r.Guest {
		if of := m.guests.Runtime(pod.ID); of != nil {
			r = of
		}
	}
	return r, nil
}

// runtimeInPod returns the runtime of a handler that another container in the pod was created
// with, or nil.
func (m *Manager) runtimeInPod(podID, handler string) *runtime.Runtime {
	for _, c := range m.podContainers(podID) {
		if c.runtime.Name == handler && c.runtime.Path != "" {
			return c.runtime
		}
	}
	return nil
}

// knownRuntimes returns the configured runtimes and the former runtimes, sorted by name.
func (s *Settings) knownRuntimes() []*runtime.Runtime {
	var known []*runtime.Runtime
	for _, runtimes := range []map[string]*runtime.Runtime{s.Runtimes, s.FormerRuntimes} {
		for _, name := range slices.Sorted(maps.Keys(runtimes)) {
			known = append(known, runtimes[name])
		}
	}
	return known
}

// findRuntime returns the runtime that has a container of the id. If no runtime has
// one, it returns the default runtime, whose delete then does nothing.
func (m *Manager) findRuntime(id string) runtime.Runtime {
	s := m.settings.Load()
	for _, r := range s.knownRuntimes() {
		if r.HasContainer(id) {
			return *r
		}
	}
	return *s.Runtimes[s.DefaultRuntime]
}
