package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
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

// parts is the daemon put together. It is the only place that sees every
// package.
type parts struct {
	images     *image.Manager
	pods       *sandbox.Manager
	containers *container.Manager
	watcher    *proc.Watcher
	spawner    *cgroup.Spawner
	streams    *streaming.Server
	server     *server.Server
	plugins    *nri.Manager // nil where NRI is off
	runtimes   *runtimes
	host       *host
	manager    serviceManager
	started    func() // to be called when the start has ended
}

// runDaemon runs everything until ctx ends or a part of it fails.
func runDaemon(ctx context.Context, cfg config.Config) error {
	begun := time.Now()
	defer tolerateSignals()()
	manager := adoptServiceManager()
	started := sync.OnceFunc(manager.extendStart(extendEvery))
	defer started()
	locks, err := claim(cfg.Root, cfg.RunDir)
	if err != nil {
		return err
	}
	p, err := wire(ctx, cfg)
	if err != nil {
		return errors.Join(err, closeAll(locks))
	}
	p.manager, p.started = manager, started
	err = p.run(ctx, cfg, begun)
	return errors.Join(err, closeAll(locks))
}

// wire builds the parts; none of them does anything yet.
func wire(ctx context.Context, cfg config.Config) (*parts, error) {
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
	p := &parts{runtimes: rt, host: host, spawner: cgroup.NewSpawner(host.cgroups, host.monitorCgroup)}
	if p.watcher, err = proc.NewWatcher(); err != nil {
		return nil, err
	}
	if p.images, err = image.New(imageConfig(cfg)); err != nil {
		return nil, err
	}
	pods := &podAdapter{}
	if p.plugins, err = newPlugins(cfg, p); err != nil {
		return nil, err
	}
	cc := container.Config{
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
		BlockIO:                blockIO,
		RDT:                    rdt,
	}
	pc := podConfig(cfg, host, rt)
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
	if p.streams, err = newStreams(cfg, p); err != nil {
		return nil, err
	}
	p.server = server.New(serverConfig(cfg, host, rt, p))
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

// run works until ctx ends or a part fails. The parts end in the reverse order of
// their use: the server with the calls under way, the managers, the plugins, and
// last the spawner and the watcher, which the managers need for all that they do.
func (p *parts) run(ctx context.Context, cfg config.Config, begun time.Time) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	base, managers := newStage(ctx, fail), newStage(ctx, fail)
	base.run(p.watcher.Run)
	base.run(p.spawner.Run)
	err := p.work(ctx, managers, cfg, begun)
	return errors.Join(err, base.end())
}

// work restores what an earlier daemon left, then serves. The managers have ended
// when work returns.
func (p *parts) work(ctx context.Context, managers *stage, cfg config.Config, begun time.Time) error {
	if err := p.restore(ctx); err != nil {
		return err
	}
	managers.run(func(ctx context.Context) error { p.runtimes.run(ctx, p.runtimes.trial(cfg, p.host)); return nil })
	managers.run(p.images.Run)
	managers.run(p.pods.Run)
	managers.run(p.containers.Run)
	if p.plugins != nil {
		if err := p.plugins.Start(); err != nil {
			return errors.Join(err, managers.end())
		}
		defer p.plugins.Stop() // when neither a request nor a manager has anything to tell them
		managers.run(p.plugins.Run)
	}
	err := p.serve(ctx, cfg, begun)
	return errors.Join(err, managers.end())
}

// serve answers requests until ctx ends, and those under way for a while longer.
func (p *parts) serve(ctx context.Context, cfg config.Config, begun time.Time) error {
	sl, err := listenStreams(cfg)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.streams.Serve(ctx, sl) })
	g.Go(func() error {
		l, err := listen(cfg)
		if err != nil {
			return err
		}
		logrus.WithFields(logrus.Fields{
			"socket": cfg.Socket, "version": release(), "pods": len(p.pods.List()), "containers": len(p.containers.List()),
			"duration": time.Since(begun).Round(time.Millisecond).String(),
		}).Info("serving")
		p.started()
		p.manager.tell(stateReady)
		defer context.AfterFunc(ctx, func() { p.manager.tell(stateStopping) })()
		return p.server.Serve(ctx, l)
	})
	return g.Wait()
}

// restore goes from the ground up: containers stand on pods and images.
func (p *parts) restore(ctx context.Context) error {
	if err := p.images.Restore(ctx); err != nil {
		return fmt.Errorf("restore images: %w", err)
	}
	if err := p.pods.Restore(ctx); err != nil {
		return fmt.Errorf("restore pods: %w", err)
	}
	if err := p.containers.Restore(ctx); err != nil {
		return fmt.Errorf("restore containers: %w", err)
	}
	if err := p.images.Sweep(ctx, p.containers.Holds); err != nil {
		logrus.WithContext(ctx).WithError(err).Warn("sweep of writable layers without container")
	}
	return nil
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

func podConfig(cfg config.Config, host *host, rt *runtimes) sandbox.Config {
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

func serverConfig(cfg config.Config, host *host, rt *runtimes, p *parts) server.Config {
	driver := cri.CgroupDriver_CGROUPFS
	if host.driver == sandbox.Systemd {
		driver = cri.CgroupDriver_SYSTEMD
	}
	return server.Config{
		Version: release(), Pods: p.pods, Containers: p.containers, Images: p.images, Streams: p.streams,
		CgroupDriver: driver, Runtimes: runtimeAdapter{rt}, Features: &cri.RuntimeFeatures{SupplementalGroupsPolicy: true, MountOptions: true},
		Info: func() map[string]string { return statusInfo(cfg, host, rt) },
	}
}

func newStreams(cfg config.Config, p *parts) (*streaming.Server, error) {
	c := streaming.Config{Containers: p.containers, Pods: p.pods, IdleTimeout: cfg.Streaming.IdleTimeout}
	if cfg.Streaming.TLSCert != "" {
		var err error
		if c.TLS, err = streaming.TLS(cfg.Streaming.TLSCert, cfg.Streaming.TLSKey); err != nil {
			return nil, err
		}
	}
	return streaming.New(c), nil
}

// findMonitor returns the path of the monitor's binary: the configured path, or
// the first executable among monitorCandidates.
func findMonitor(cfg config.Config) (string, error) {
	candidates := []string{cfg.Monitor.Path}
	if cfg.Monitor.Path == "" {
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

// monitorCandidates lists where the monitor of a daemon in binDir may be. The
// libexec directory beside binDir comes first: another program of the name
// conmon, which distributions install for Podman and CRI-O, may be in binDir.
func monitorCandidates(binDir string) []string {
	return []string{
		filepath.Join(filepath.Dir(binDir), "libexec", "criserver", "conmon"),
		filepath.Join(binDir, "conmon"),
		"/usr/libexec/criserver/conmon",
	}
}
