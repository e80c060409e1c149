package daemon

import (
	"context"
	"path/filepath"
	"sync/atomic"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/checkpoint"
	"github.com/criserver/criserver/checkpoint/restore"
	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/criu"
	"github.com/criserver/criserver/internal/daemon/handlers"
	"github.com/criserver/criserver/internal/daemon/plugins"
	"github.com/criserver/criserver/internal/daemon/servicemanager"
	"github.com/criserver/criserver/internal/daemon/telemetry"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/internal/systemd"
	"github.com/criserver/criserver/internal/tracing"
	"github.com/criserver/criserver/nri"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/server"
	"github.com/criserver/criserver/server/admin"
	"github.com/criserver/criserver/server/metrics"
	"github.com/criserver/criserver/server/streaming"
)

// parts contains the parts of the daemon.
type parts struct {
	settings   config.Config // of the start, for the keys that a reload does not change
	version    string
	commit     string
	load       func() (config.Config, error)
	manager    servicemanager.Manager
	host       *hostInfo
	live       atomic.Pointer[live]
	reloads    reloads
	trials     *handlers.Trials
	images     *image.Manager
	pods       *sandbox.Manager
	containers *container.Manager
	criu       *criu.Checker
	checkpoint *checkpoint.Manager
	restores   *restore.Manager
	watcher    *proc.Watcher
	spawner    *cgroup.Spawner
	streams    *streaming.Server
	server     *server.Server
	plugins    *nri.Manager // nil if NRI is disabled
	admin      *admin.Server
	started    startTimes
	timelines  *steps.Timelines
	steps      *steps.Recorder
	tracer     *tracing.Tracer  // nil if tracing is off
	metrics    *metrics.Metrics // nil if the metrics are off

	metricsServer *metrics.Server // nil if the metrics are off
}

// build inspects the host, proves that the default runtime works, and builds and connects the
// parts. It does not start the parts.
func build(ctx context.Context, c Config) (*parts, error) {
	cfg := c.Settings
	p := &parts{settings: cfg, version: c.Version, commit: c.Commit, load: c.Load, reloads: newReloads(), timelines: steps.NewTimelines()}
	var err error
	if p.metrics, p.metricsServer, err = telemetry.NewMetrics(cfg, c.Version); err != nil {
		return nil, err
	}
	if p.steps, p.tracer, err = telemetry.NewRecorder(cfg.Tracing, c.Version, p.timelines, p.stepObservers()...); err != nil {
		return nil, err
	}
	if p.host, err = inspectHost(cfg); err != nil {
		return nil, err
	}
	p.trials = handlers.NewTrials(handlers.TrialConfig{
		Host: p.host.handlers(), Root: cfg.Root, RunDir: cfg.RunDir, Builder: func() *oci.Builder { return p.live.Load().builder },
	})
	l, err := newLive(ctx, cfg, p.host, nil)
	if err != nil {
		return nil, err
	}
	p.live.Store(l)
	p.spawner = cgroup.NewSpawner(p.host.cgroups, p.host.monitorCgroup)
	if p.watcher, err = proc.NewWatcher(); err != nil {
		return nil, err
	}
	if p.images, err = image.New(imageConfig(cfg)); err != nil {
		return nil, err
	}
	if err := p.images.CheckFiles(ctx); err != nil {
		return nil, err
	}
	managers := &plugins.Managers{} // set last
	o := plugins.Config{Settings: cfg.NRI, Name: server.Name, Version: p.version, Managers: managers}
	if p.metrics != nil {
		o.Observer = p.metrics
	}
	if p.plugins, err = plugins.New(o); err != nil {
		return nil, err
	}
	// Containers and pods refer to each other, so pods.pods is set last.
	pods := &podAdapter{}
	cc, pc := p.containerConfig(pods), p.podConfig()
	if p.metrics != nil {
		cc.Observer = p.metrics
	}
	if p.plugins != nil {
		cc.Plugins, pc.Plugins = plugins.ForContainers(p.plugins, managers), plugins.ForPods(p.plugins)
	}
	if p.containers, err = container.New(cc); err != nil {
		return nil, err
	}
	pc.Containers = p.containers
	if p.pods, err = sandbox.New(pc); err != nil {
		return nil, err
	}
	if err := p.pods.CheckSettings(pc.Settings); err != nil {
		return nil, err
	}
	pods.pods = p.pods
	managers.Pods, managers.Containers = p.pods, p.containers
	p.criu = newCRIU(p)
	if p.checkpoint, err = newCheckpoints(p); err != nil {
		return nil, err
	}
	p.restores = newRestores(p)
	p.watchMetrics()
	p.streams = streaming.New(streaming.Config{
		Containers: p.containers, Pods: p.pods, IdleTimeout: cfg.Streaming.IdleTimeout, TLS: l.tls,
	})
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
		ArchiveDirs:       cfg.Image.ArchiveDirs,
		MaxArchiveBytes:   cfg.Image.MaxArchiveBytes,
		Limits: image.Limits{
			Layers: cfg.Image.MaxLayers, Entries: cfg.Image.MaxLayerEntries, LayerBytes: cfg.Image.MaxLayerBytes,
		},
	}
}

func (p *parts) containerConfig(pods *podAdapter) container.Config {
	cfg, h, l := p.settings, p.host, p.live.Load()
	return container.Config{
		RunDir:     cfg.RunDir,
		RestoreDir: filepath.Join(cfg.Root, "restore"),
		Pods:       pods,
		Images:     imageAdapter{p.images},
		Monitors:   &conmon.Launcher{Path: h.monitorPath, Starter: p.spawner, Watcher: p.watcher},
		Cgroups:    h.cgroups,
		Watcher:    p.watcher,
		AppArmor:   l.appArmor,
		Labels:     h.containerLabels(),
		DaemonUnit: h.daemonUnit,
		PausePath:  h.monitorPath,
		Usage:      p.images.RootFSUsage,
		LayerRoot:  cfg.Root,
		Settings:   l.containerSettings(),
	}
}

func (p *parts) podConfig() sandbox.Config {
	cfg, h := p.settings, p.host
	return sandbox.Config{
		RunDir:       cfg.RunDir,
		Cgroups:      h.cgroups,
		Units:        &systemd.Manager{},
		Labels:       h.podLabels(),
		CgroupDriver: h.cgroupDriver,
		CgroupParent: h.cgroupParent,
		PausePath:    h.monitorPath,
		NetNSDir:     cfg.Pod.NetNSDir,
		Settings:     p.live.Load().podSettings(),
	}
}

func (p *parts) serverConfig() server.Config {
	driver := cri.CgroupDriver_CGROUPFS
	if p.host.cgroupDriver == sandbox.Systemd {
		driver = cri.CgroupDriver_SYSTEMD
	}
	c := server.Config{
		Version: p.version, Pods: p.pods, Containers: p.containers, Images: p.images, Streams: p.streams,
		CgroupDriver: driver, Runtimes: handlerAdapter{p}, Checkpoints: p.checkpoint, Restores: p.restores,
		Info: p.statusInfo, Steps: p.steps,
	}
	if p.tracer != nil {
		c.RemoteTrace = p.tracer.Remote
	}
	if p.metrics != nil {
		c.Calls = p.metrics
	}
	return c
}
