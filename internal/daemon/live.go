package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/internal/daemon/defaults"
	"github.com/criserver/criserver/internal/daemon/handlers"
	"github.com/criserver/criserver/internal/daemon/listen"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/cdi"
	"github.com/criserver/criserver/oci/hooks"
	"github.com/criserver/criserver/oci/qos"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/sandbox/network"
)

// live is the part of the daemon that a reload replaces: the settings, and everything that is made
// from them and from the files that they name. It is immutable.
type live struct {
	settings config.Config
	builder  *oci.Builder
	handlers *handlers.Set
	blockIO  qos.BlockIO
	rdt      qos.RDT
	tls      *tls.Config // of the streaming server, or nil
	appArmor bundle.AppArmor
	hooks    *hooks.Dirs
}

// newLive reads the files that the settings name and makes the rest from them. before is nil when
// the daemon starts. newLive has no effect on the live settings in force. Its error contains the
// keys of all files that are not valid.
func newLive(ctx context.Context, cfg config.Config, h *hostInfo, before *live) (*live, error) {
	l := &live{settings: cfg, hooks: defaults.Hooks(cfg.Container.HooksDirs)}
	var errs [4]error
	l.blockIO, l.rdt, errs[0] = defaults.ResourceClasses(cfg)
	l.builder, l.appArmor, errs[1] = defaults.NewBuilder(ctx, cfg, h.oci)
	if cfg.Streaming.TLSCert != "" {
		if l.tls, errs[2] = listen.StreamingTLS(cfg.Streaming); errs[2] != nil {
			errs[2] = fmt.Errorf("streaming: %w", errs[2])
		}
	}
	if errs[3] = defaults.CheckTimezone(config.TimezoneFile(cfg.Container.Timezone)); errs[3] != nil {
		errs[3] = fmt.Errorf("container.timezone: %w", errs[3])
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	var old *handlers.Set
	if before != nil {
		old = before.handlers
	}
	var err error
	if l.handlers, err = handlers.New(ctx, cfg, h.handlers(), l.builder, old); err != nil {
		return nil, err
	}
	return l, nil
}

// containerSettings returns the settings of containers.
func (l *live) containerSettings() container.Settings {
	cfg, set := l.settings, l.handlers
	return container.Settings{
		Settings: bundle.Settings{
			Builder:                l.builder,
			RefuseMissingHostPaths: !cfg.Container.MakeHostPaths,
			RequiredHostPaths:      cfg.Container.RequiredHostPaths,
			MapsSubmounts:          set.MapsSubmounts,
			CDI:                    cdi.NewRegistry(cfg.Container.CDISpecDirs),
			DeviceOwnerIsUser:      cfg.Container.DeviceOwnerFromUser,
			AdditionalDevices:      defaults.AdditionalDevices(cfg.Container.AdditionalDevices),
			DefaultEnv:             cfg.Container.DefaultEnv,
			Localtime:              config.TimezoneFile(cfg.Container.Timezone),
			BlockIO:                l.blockIO,
			RDT:                    l.rdt,
			Hooks:                  l.hooks,
		},
		Runtimes:           set.Runtimes(),
		Handlers:           set.Settings(),
		DefaultRuntime:     set.Default(),
		FormerRuntimes:     set.FormerRuntimes(),
		MountOptions:       set.MountOptions,
		UserNamespaces:     set.UserNamespaceError,
		IgnoreImageVolumes: cfg.Container.IgnoreImageVolumes,
		LogSizeMax:         max(0, cfg.Monitor.LogSizeMax),
	}
}

// podSettings returns the settings of pods.
func (l *live) podSettings() sandbox.Settings {
	cfg, set := l.settings, l.handlers
	return sandbox.Settings{
		CNI: network.Config{
			ConfDirs: cfg.CNI.ConfDirs, BinDirs: cfg.CNI.BinDirs, DefaultNetwork: cfg.CNI.DefaultNetwork,
			Additional: cfg.CNI.Additional, ConfTemplate: cfg.CNI.ConfTemplate, NoBuiltin: !cfg.CNI.Builtin,
			DefaultBridge: cfg.CNI.DefaultBridge, HandlerConfDirs: set.ConfDirs(cfg.Runtimes),
		},
		HasGuests:      set.RunsGuests,
		KnownHandler:   set.Exists,
		HandlerNames:   set.Names,
		DefaultHandler: set.Default(),
		CheckResources: l.builder.CheckResources,
		UserNamespaces: set.UserNamespaceError,

		HostNetworkUserNamespaces: set.HostNetworkUserNSError,

		CheckSecurity:  l.builder.CheckSandbox,
		AllowedSysctls: cfg.Pod.AllowedSysctls,
		DefaultSysctls: defaults.Sysctls(cfg.Pod.DefaultSysctls),
		NoHostPorts:    !cfg.CNI.HostPorts,
		PreferFamily:   preferredFamily(cfg.CNI.IPPreference),
		ShmSize:        cfg.Pod.ShmSize,
	}
}

// preferredFamily returns the address family for a value of cni.ip_preference.
func preferredFamily(preference string) sandbox.Family {
	switch preference {
	case config.IPPreferenceIPv4:
		return sandbox.IPv4
	case config.IPPreferenceIPv6:
		return sandbox.IPv6
	}
	return sandbox.AnyFamily
}
