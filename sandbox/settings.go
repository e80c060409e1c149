package sandbox

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podspec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Settings are the settings of a Manager that Update can replace while the Manager runs. A request uses the settings
// that are in force when it begins. The zero values of optional fields stand for the documented defaults.
type Settings struct {
	CNI network.Config
	// HasGuests reports whether the runtime of a handler runs pods under their own kernels (docs/adr/0007). If HasGuests
	// is nil, no runtime does.
	HasGuests func(handler string) bool
	// KnownHandler reports whether a runtime handler exists. HandlerNames lists the handlers for error messages.
	KnownHandler func(name string) bool
	HandlerNames func() []string

	// CheckResources returns an error that names the field if its limits break a rule. If CheckResources is nil, all
	// limits are valid.
	CheckResources func(field string, r *cri.LinuxContainerResources) error
	// UserNamespaces returns the reason why pods of a runtime handler cannot have a user namespace, or nil if they can. If
	// UserNamespaces is nil, no pod can have one.
	UserNamespaces func(handler string) error
	// HostNetworkUserNamespaces is like UserNamespaces, for pods with the network of the host.
	HostNetworkUserNamespaces func(handler string) error
	// CheckSecurity returns an error if the node cannot confine a pod as the security context requires. If CheckSecurity
	// is nil, the node can.
	CheckSecurity func(*cri.LinuxSandboxSecurityContext) error
	// DefaultHandler is the name of the handler that the empty name stands for, or "" if it has no name.
	DefaultHandler string

	// AllowedSysctls are the sysctls that pods may request: names, or prefixes that end in "*".
	AllowedSysctls []string
	// DefaultSysctls are the values of sysctls, by name, of pods that do not request another value.
	DefaultSysctls map[string]string
	// PreferFamily is the address family of the primary address of new pods that have addresses of both families.
	PreferFamily Family
	// NoHostPorts is true if the host ports of new pods are not mapped. Requests with host ports are accepted.
	NoHostPorts bool
	// ShmSize is the size of a pod's /dev/shm in bytes.
	ShmSize int64
}

func (s Settings) withDefaults(runDir string) Settings {
	setDefault(&s.CNI.CacheDir, filepath.Join(runDir, "cni"))
	if s.HasGuests == nil {
		s.HasGuests = func(string) bool { return false }
	}
	if s.KnownHandler == nil {
		s.KnownHandler = func(name string) bool { return name == "" }
	}
	if s.HandlerNames == nil {
		s.HandlerNames = func() []string { return nil }
	}
	return s
}

// CheckSettings returns an error if Update would fail with the settings.
func (m *Manager) CheckSettings(s Settings) error { return m.net.CheckConfig(s.CNI) }

// Update replaces the settings for requests that begin after it. Existing pods keep their namespaces, their files and
// the networks that they are attached to. Of CNI, the fields CacheDir and NoBuiltin do not change. The new settings are
// in force also if Update returns an error, which says that the default network could not be generated.
func (m *Manager) Update(ctx context.Context, s Settings) error {
	s = s.withDefaults(m.cfg.RunDir)
	m.settings.Store(&s)
	if err := m.net.Update(ctx, s.CNI); err != nil {
		return fmt.Errorf("update networks: %w", err)
	}
	return nil
}

// node returns the rules of the node and of the configuration for requests.
func (m *Manager) node(s *Settings) podspec.Node {
	return podspec.Node{
		KnownHandler:   s.KnownHandler,
		HandlerNames:   s.HandlerNames,
		Pause:          m.cfg.PausePath != "",
		UserNamespaces: s.UserNamespaces,

		HostNetworkUserNamespaces: s.HostNetworkUserNamespaces,

		CgroupDriver:       m.cfg.CgroupDriver,
		CheckSecurity:      s.CheckSecurity,
		CheckResources:     s.CheckResources,
		AllowedSysctls:     s.AllowedSysctls,
		DefaultSysctls:     s.DefaultSysctls,
		AdditionalNetworks: s.CNI.Additional,
	}
}
