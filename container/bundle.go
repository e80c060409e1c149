package container

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/container/guest"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// writeBundle looks up everything that the OCI config names, in the root file system
// and on the host, and writes the config. The file, which can be nil, must stay open
// until the runtime has created the container.
func (m *Manager) writeBundle(ctx context.Context, c *container, p *plan) (_ *os.File, err error) {
	ctx, step := steps.Start(ctx, steps.BundleWrite)
	defer step.EndWith(&err)
	r := m.bundleRequest(c, p)
	in, id, err := r.Input(ctx)
	c.setIdentity(id)
	if err != nil {
		return nil, err
	}
	ns, target, err := m.namespaces(p.spec.PID, p.pod)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && target != nil {
			_ = target.Close()
		}
	}()
	in.Namespaces = ns
	config, err := m.buildConfig(ctx, c, p, r, in)
	if err != nil {
		return nil, err
	}
	if p.restore != nil {
		p.restoreArgs, p.cgroupNS = append(slices.Clip(p.restore.Args), labelArgs(config)...), hasNewCgroupNamespace(config)
		if err := p.restore.Check(ctx, RestoreTarget{Config: config, ImageID: c.rec.ImageID, Images: c.rec.Restore.Images}); err != nil {
			return nil, err
		}
	}
	if err := bundle.MakeLogDir(p.pod.Config.GetLogDirectory(), c.rec.LogPath); err != nil {
		return nil, err
	}
	b, err := oci.Encode(config)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.process = config.Process
	c.mu.Unlock()
	return target, os.WriteFile(filepath.Join(c.dir, record.ConfigFile), b, 0o600)
}

// bundleRequest returns the request for the OCI config of a container.
func (m *Manager) bundleRequest(c *container, p *plan) *bundle.Request {
	return &bundle.Request{
		ID: c.id, RootFS: c.rootfs(), ImageRef: c.rec.ImageRef, Pod: bundlePod(p.pod), Spec: p.spec, Process: p.process, Runtime: c.runtime,
		Handler: p.handler, Settings: p.settings.Settings, Host: m.bundleHost(), Labels: p.labels, BlockIO: p.blockIO, Volumes: p.volumes,
		Enter: c.enter, Log: c.log(),
	}
}

func (m *Manager) bundleHost() bundle.Host {
	return bundle.Host{
		Labeler: m.cfg.Labels, AppArmor: m.cfg.AppArmor,
		HasBlockIOWeight: func(cgroup string) bool { return m.cfg.Cgroups.HasBlockIOWeight(cgroup) },
	}
}

// bundlePod returns the properties of a pod that the OCI configs of its containers depend on.
func bundlePod(p Pod) bundle.Pod {
	return bundle.Pod{
		ID: p.ID, Config: p.Config, RuntimeHandler: p.RuntimeHandler, CgroupParent: p.CgroupParent,
		IPCNS: p.IPCNS, UserNS: p.UserNS, UserMaps: containerspec.UserMaps(p.Config), ProcessLabel: p.ProcessLabel, MountLabel: p.MountLabel,
		Files: oci.Files{Hosts: p.Hosts, Hostname: p.Hostname, ResolvConf: p.ResolvConf, Shm: p.Shm},
	}
}

// buildConfig makes the OCI config, with the changes of CDI devices, the hooks of the operator
// and the changes of plugins.
func (m *Manager) buildConfig(ctx context.Context, c *container, p *plan, r *bundle.Request, in oci.Input) (_ *specs.Spec, err error) {
	ctx, step := steps.Start(ctx, steps.SpecBuild)
	defer step.EndWith(&err)
	config, err := r.Build(in)
	if err != nil {
		return nil, err
	}
	guest.Annotate(c.runtime, p.pod.ID, config)
	if config, err = m.applyPlugins(ctx, c, r, config); err != nil {
		return nil, err
	}
	// The edits of CDI devices can add groups.
	c.setGroups(config.Process.User.AdditionalGids)
	if c.runtime.ScopeProperties {
		m.scope(c, p).Apply(config)
	}
	return config, nil
}

func (c *container) setIdentity(id containerspec.Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.UID, c.status.GID, c.status.Groups = int64(id.UID), int64(id.GID), toInt64(id.Groups)
}

func (c *container) setGroups(groups []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Groups = toInt64(groups)
}

func toInt64(ids []uint32) []int64 {
	var out []int64
	for _, id := range ids {
		out = append(out, int64(id))
	}
	return out
}

// scope returns how systemd stops the container when systemd itself does it, for
// example at a shutdown of the machine. Systemd stops the daemon and the pause process
// after the container: the end of a pause process ends all processes of its PID namespace.
func (m *Manager) scope(c *container, p *plan) oci.Scope {
	s := oci.Scope{StopSignal: c.rec.StopSignal, StopTimeout: p.spec.GracePeriod}
	for _, unit := range []string{m.cfg.DaemonUnit, p.pod.PauseUnit} {
		if unit != "" {
			s.After = append(s.After, unit)
		}
	}
	return s
}
