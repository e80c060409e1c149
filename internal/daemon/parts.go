package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/systemd"
	"github.com/criserver/criserver/nri"
	"github.com/criserver/criserver/oci/cdi"
	"github.com/criserver/criserver/oci/qos"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/server"
	"github.com/criserver/criserver/server/streaming"
)

// parts are the parts of the daemon.
type parts struct {
	settings   config.Config
	version    string
	host       *host
	runtimes   *runtimes
	images     *image.Manager
	pods       *sandbox.Manager
	containers *container.Manager
	watcher    *proc.Watcher
	spawner    *cgroup.Spawner
	streams    *streaming.Server
	server     *server.Server
	plugins    *nri.Manager // nil if NRI is disabled
}

// build inspects the host, proves that the default runtime works, and builds and connects
// the parts. It starts none of them.
func build(ctx context.Context, cfg config.Config, version string) (*parts, error) {
	blockIO, rdt, err := classes(cfg)
	if err != nil {
		return nil, err
	}
	host, err := detectHost(cfg)
	if err != nil {
		return nil, err
	}
	rt, err := chooseRuntimes(ctx, cfg, host)
	if err != nil {
		return nil, err
	}
	p := &parts{
		settings: cfg, version: version, host: host, runtimes: rt,
		spawner: cgroup.NewSpawner(host.cgroups, host.monitorCgroup),
	}
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
	return p, nil
}

// classes are the operator's of block I/O and RDT, found to be without mistakes.
func classes(cfg config.Config) (qos.BlockIO, qos.RDT, error) {
	blockIO, rdt := qos.BlockIO{File: cfg.Container.BlockIOConfigFile}, qos.RDT{File: cfg.Container.RDTConfigFile, Root: qos.ResctrlRoot}
	var errs []error
	if err := blockIO.Check(); err != nil {
		errs = append(errs, fmt.Errorf("container.blockio_config_file: %w", err))
	}
	if err := rdt.Check(); err != nil {
		errs = append(errs, fmt.Errorf("container.rdt_config_file: %w", err))
	}
	return blockIO, rdt, errors.Join(errs...)
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
		ProgressWindow:    progressWindow(cfg.Image.ProgressWindow),
		Limits: image.Limits{
			Layers: cfg.Image.MaxLayers, Entries: cfg.Image.MaxLayerEntries, LayerBytes: cfg.Image.MaxLayerBytes,
		},
	}
}

// progressWindow turns the key's "never" into that of package image, where zero
// means the default.
func progressWindow(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

func (p *parts) containerConfig(pods *podAdapter) container.Config {
	cfg, host, rt := p.settings, p.host, p.runtimes
	return container.Config{
		RunDir:                 cfg.RunDir,
		Pods:                   pods,
		Images:                 imageAdapter{p.images},
		Monitors:               &conmon.Launcher{Path: host.monitor, Starter: p.spawner, Watcher: p.watcher},
		Cgroups:                host.cgroups,
		Watcher:                p.watcher,
		Runtimes:               rt.byName,
		DefaultRuntime:         rt.defaultName,
		MountOptions:           rt.mountOptions,
		RefuseMissingHostPaths: !cfg.Container.MakeHostPaths,
		AppArmor:               rt.appArmor,
		Labels:                 host.containerLabels(),
		CDI:                    cdi.NewRegistry(cfg.Container.CDISpecDirs),
		DeviceOwnerIsUser:      cfg.Container.DeviceOwnerFromUser,
		Builder:                rt.builder,
		DaemonUnit:             host.unit,
		UserNamespaces:         rt.userNamespaces,
		MapsSubmounts:          rt.mapsSubmounts,
		PausePath:              host.monitor,
		Usage:                  p.images.RootFSUsage,
		LayerRoot:              cfg.Root,
	}
}

func (p *parts) podConfig() sandbox.Config {
	cfg, host, rt := p.settings, p.host, p.runtimes
	return sandbox.Config{
		RunDir: cfg.RunDir,
		CNI: network.Config{
			ConfDirs: cfg.CNI.ConfDirs, BinDirs: cfg.CNI.BinDirs, DefaultNetwork: cfg.CNI.DefaultNetwork,
			Additional: cfg.CNI.Additional, ConfTemplate: cfg.CNI.ConfTemplate, NoBuiltin: !cfg.CNI.Builtin,
		},
		Cgroups:        host.cgroups,
		Units:          &systemd.Manager{},
		HasGuests:      rt.hasGuests,
		KnownHandler:   rt.known,
		HandlerNames:   rt.names,
		CheckResources: rt.builder.CheckResources,
		UserNamespaces: rt.userNamespaces,
		CheckSecurity:  rt.builder.CheckSandbox,
		Labels:         host.podLabels(),
		CgroupDriver:   host.driver,
		CgroupParent:   host.cgroupParent,
		AllowedSysctls: cfg.Pod.AllowedSysctls,
		PausePath:      host.monitor,
		ShmSize:        cfg.Pod.ShmSize,
	}
}

func (p *parts) serverConfig() server.Config {
	driver := cri.CgroupDriver_CGROUPFS
	if p.host.driver == sandbox.Systemd {
		driver = cri.CgroupDriver_SYSTEMD
	}
	return server.Config{
		Version: p.version, Pods: p.pods, Containers: p.containers, Images: p.images, Streams: p.streams,
		CgroupDriver: driver, Runtimes: runtimeAdapter{p.runtimes}, Features: &cri.RuntimeFeatures{SupplementalGroupsPolicy: true, MountOptions: true},
		Info: func() map[string]string { return statusInfo(p.settings, p.host, p.runtimes) },
	}
}

func (p *parts) newStreams() (*streaming.Server, error) {
	cfg := p.settings
	c := streaming.Config{Containers: p.containers, Pods: p.pods, IdleTimeout: cfg.Streaming.IdleTimeout}
	if cfg.Streaming.TLSCert != "" {
		var err error
		if c.TLS, err = streaming.TLS(cfg.Streaming.TLSCert, cfg.Streaming.TLSKey); err != nil {
			return nil, err
		}
	}
	return streaming.New(c), nil
}
