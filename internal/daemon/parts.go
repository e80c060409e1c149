package daemon

import (
	"context"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/systemd"
	"github.com/criserver/criserver/nri"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/cdi"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/server"
	"github.com/criserver/criserver/server/admin"
	"github.com/criserver/criserver/server/streaming"
)

// parts contains the parts of the daemon.
type parts struct {
	settings   config.Config
	version    string
	commit     string
	host       *hostInfo
	builder    *oci.Builder
	appArmor   container.AppArmor // nil on a host without AppArmor
	handlers   *handlerSet
	images     *image.Manager
	pods       *sandbox.Manager
	containers *container.Manager
	watcher    *proc.Watcher
	spawner    *cgroup.Spawner
	streams    *streaming.Server
	server     *server.Server
	admin      *admin.Server
	started    startTimes
	plugins    *nri.Manager // nil if NRI is disabled
}

// build inspects the host, proves that the default runtime works, and builds and connects the
// parts. It does not start the parts.
func build(ctx context.Context, c Config) (*parts, error) {
	cfg := c.Settings
	blockIO, rdt, err := resourceClasses(cfg)
	if err != nil {
		return nil, err
	}
	p := &parts{settings: cfg, version: c.Version, commit: c.Commit}
	if p.host, err = inspectHost(cfg); err != nil {
		return nil, err
	}
	if p.builder, p.appArmor, err = newBuilder(ctx, cfg, p.host.oci); err != nil {
		return nil, err
	}
	if p.handlers, err = newHandlers(ctx, cfg, p.host, p.builder); err != nil {
		return nil, err
	}
	p.spawner = cgroup.NewSpawner(p.host.cgroups, p.host.monitorCgroup)
	if p.watcher, err = proc.NewWatcher(); err != nil {
		return nil, err
	}
	if p.images, err = image.New(imageConfig(cfg)); err != nil {
		return nil, err
	}
	if p.plugins, err = newPlugins(p); err != nil {
		return nil, err
	}
	// Containers and pods refer to each other, so pods.pods is set last.
	pods := &podAdapter{}
	cc, pc := p.containerConfig(pods), p.podConfig()
	cc.BlockIO, cc.RDT = blockIO, rdt
	if p.plugins != nil {
		cc.Plugins, pc.Plugins = containerPlugins{p.plugins, pods}, podPlugins{p.plugins}
	}
	if p.containers, err = container.New(cc); err != nil {
		return nil, err
	}
	pc.Containers = p.containers
	if p.pods, err = sandbox.New(pc); err != nil {
		return nil, err
	}
	pods.pods = p.pods
	if p.streams, err = p.newStreams(); err != nil {
		return nil, err
	}
	p.server = server.New(p.serverConfig())
	p.admin = admin.New(p.adminConfig())
	return p, nil
}

func imageConfig(cfg config.Config) image.Config {
	return image.Config{
		Root:              cfg.Root,
		RunRoot:           cfg.RunDir,
		RegistriesConf:    cfg.Image.RegistriesConf,
		RegistriesConfDir: cfg.Image.RegistriesConfDir,
		PolicyPath:        cfg.Image.Policy,
		PolicyDir:         cfg.Image.PolicyDir,
		RegistriesD:       cfg.Image.RegistriesD,
		AuthFile:          cfg.Image.AuthFile,
		PinnedImages:      cfg.Image.Pinned,
		MaxParallelLayers: cfg.Image.ParallelLayers,
		ProgressWindow:    cfg.Image.ProgressWindow,
		Limits: image.Limits{
			Layers: cfg.Image.MaxLayers, Entries: cfg.Image.MaxLayerEntries, LayerBytes: cfg.Image.MaxLayerBytes,
		},
	}
}

func (p *parts) containerConfig(pods *podAdapter) container.Config {
	cfg, h, handlers := p.settings, p.host, p.handlers
	return container.Config{
		RunDir:                 cfg.RunDir,
		Pods:                   pods,
		Images:                 imageAdapter{p.images},
		Monitors:               &conmon.Launcher{Path: h.monitorPath, Starter: p.spawner, Watcher: p.watcher},
		Cgroups:                h.cgroups,
		Watcher:                p.watcher,
		Runtimes:               handlers.runtimes,
		Handlers:               handlers.settings,
		DefaultRuntime:         handlers.defaultName,
		MountOptions:           handlers.mountOptions,
		RefuseMissingHostPaths: !cfg.Container.MakeHostPaths,
		RequiredHostPaths:      cfg.Container.RequiredHostPaths,
		AdditionalDevices:      additionalDevices(cfg.Container.AdditionalDevices),
		DefaultEnv:             cfg.Container.DefaultEnv,
		Hooks:                  ociHooks(cfg.Container.HooksDirs),
		LogSizeMax:             max(0, cfg.Monitor.LogSizeMax),
		AppArmor:               p.appArmor,
		Labels:                 h.containerLabels(),
		CDI:                    cdi.NewRegistry(cfg.Container.CDISpecDirs),
		DeviceOwnerIsUser:      cfg.Container.DeviceOwnerFromUser,
		Builder:                p.builder,
		DaemonUnit:             h.daemonUnit,
		UserNamespaces:         handlers.userNamespaceError,
		MapsSubmounts:          handlers.mapsSubmounts,
		PausePath:              h.monitorPath,
		Usage:                  p.images.RootFSUsage,
		LayerRoot:              cfg.Root,
	}
}

func (p *parts) podConfig() sandbox.Config {
	cfg, h, handlers := p.settings, p.host, p.handlers
	return sandbox.Config{
		RunDir: cfg.RunDir,
		CNI: network.Config{
			ConfDirs: cfg.CNI.ConfDirs, BinDirs: cfg.CNI.BinDirs, DefaultNetwork: cfg.CNI.DefaultNetwork,
			Additional: cfg.CNI.Additional, ConfTemplate: cfg.CNI.ConfTemplate, NoBuiltin: !cfg.CNI.Builtin,
			DefaultBridge: cfg.CNI.DefaultBridge, HandlerConfDirs: handlers.confDirs(cfg.Runtimes),
		},
		Cgroups:        h.cgroups,
		Units:          &systemd.Manager{},
		HasGuests:      handlers.runsGuests,
		KnownHandler:   handlers.exists,
		HandlerNames:   handlers.names,
		CheckResources: p.builder.CheckResources,
		UserNamespaces: handlers.userNamespaceError,

		HostNetworkUserNamespaces: handlers.hostNetworkUserNSError,

		CheckSecurity:  p.builder.CheckSandbox,
		Labels:         h.podLabels(),
		CgroupDriver:   h.cgroupDriver,
		CgroupParent:   h.cgroupParent,
		AllowedSysctls: cfg.Pod.AllowedSysctls,
		DefaultSysctls: defaultSysctls(cfg.Pod.DefaultSysctls),
		PausePath:      h.monitorPath,
		ShmSize:        cfg.Pod.ShmSize,
		NetNSDir:       cfg.Pod.NetNSDir,
		NoHostPorts:    !cfg.CNI.HostPorts,
	}
}

func (p *parts) serverConfig() server.Config {
	driver := cri.CgroupDriver_CGROUPFS
	if p.host.cgroupDriver == sandbox.Systemd {
		driver = cri.CgroupDriver_SYSTEMD
	}
	return server.Config{
		Version: p.version, Pods: p.pods, Containers: p.containers, Images: p.images, Streams: p.streams,
		CgroupDriver: driver, Runtimes: handlerAdapter{p.handlers},
		Info: p.statusInfo,
	}
}

func (p *parts) newStreams() (*streaming.Server, error) {
	cfg := p.settings
	c := streaming.Config{Containers: p.containers, Pods: p.pods, IdleTimeout: cfg.Streaming.IdleTimeout}
	if cfg.Streaming.TLSCert != "" {
		var err error
		if c.TLS, err = streamingTLS(cfg.Streaming); err != nil {
			return nil, err
		}
	}
	return streaming.New(c), nil
}
