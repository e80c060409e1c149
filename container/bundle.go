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
	"github.com/criserver/criserver/oci/hooks"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// writeBundle looks up everything that the OCI config names, in the root file system
// and on the host, and writes the config. The file, which can be nil, must stay open
// until the runtime has created the container.
func (m *Manager) writeBundle(ctx context.Context, c *container, p *plan) (_ *os.File, err error) {
	ctx, step := steps.Start(ctx, steps.BundleWrite)
	defer step.EndWith(&err)
	in, err := m.builderInput(ctx, c, p)
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
	config, err := m.buildConfig(ctx, c, p, in)
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

// buildConfig makes the OCI config, with the changes of CDI devices, the hooks of the operator
// and the changes of plugins.
func (m *Manager) buildConfig(ctx context.Context, c *container, p *plan, in oci.Input) (_ *specs.Spec, err error) {
	ctx, step := steps.Start(ctx, steps.SpecBuild)
	defer step.EndWith(&err)
	res, err := p.settings.Builder.Build(in)
	if err != nil {
		return nil, err
	}
	if err := injectDevices(p.settings, res.Spec, p.spec.CDIDevices); err != nil {
		return nil, err
	}
	if err := p.settings.Hooks.Add(res.Spec, hooks.Container{Annotations: p.annotations(), HasMounts: len(p.spec.Mounts) > 0}); err != nil {
		return nil, err
	}
	guest.Annotate(c.runtime, p.pod.ID, res.Spec)
	for _, w := range res.Warnings {
		c.log().Warn(w)
	}
	config, err := m.applyPlugins(ctx, c, p, res.Spec)
	if err != nil {
		return nil, err
	}
	// The edits of CDI devices can add groups.
	c.setGroups(config.Process.User.AdditionalGids)
	if c.runtime.ScopeProperties {
		m.scope(c, p).Apply(config)
	}
	return config, nil
}

// builderInput returns the input of the OCI config: the request, the image and the pod, with the user, the mounts and
// the devices that were resolved on the host.
func (m *Manager) builderInput(ctx context.Context, c *container, p *plan) (_ oci.Input, err error) {
	ctx, step := steps.Start(ctx, steps.SpecResolve)
	defer step.EndWith(&err)
	s, proc := p.spec, p.process
	id, err := m.identify(c, p)
	if err != nil {
		return oci.Input{}, err
	}
	mounts, err := mountRules(p.settings, p.pod).Mounts(ctx, s.Mounts, p.volumes)
	if err == nil {
		err = m.relabel(c, p, mounts)
	}
	if err != nil {
		return oci.Input{}, err
	}
	devices, err := bundle.DeviceRules{
		Additional: p.settings.AdditionalDevices, OwnerIsUser: p.settings.DeviceOwnerIsUser, UserNS: p.pod.UserNS != "",
		NoHostDevices: p.handler.PrivilegedWithoutHostDevices,
	}.Devices(s)
	if err != nil {
		return oci.Input{}, err
	}
	profile, err := bundle.ReadSeccomp(s.Security.SeccompFile)
	if err != nil {
		return oci.Input{}, err
	}
	if err := m.ensureAppArmor(ctx, s.Security.AppArmorProfile); err != nil {
		return oci.Input{}, err
	}
	if err := bundle.PrepareRootFS(c.rootfs(), proc.WorkingDir, proc.Volumes, mounts, bundle.RootOwner(c.userMaps)); err != nil {
		return oci.Input{}, err
	}
	var volumes []oci.Mount
	if s.Security.ReadonlyRootFS {
		if volumes, err = bundle.WritableVolumes(c.rootfs(), proc.Volumes, mounts); err != nil {
			return oci.Input{}, err
		}
	}
	cgroups, _ := c.runtime.CgroupsPath(p.pod.CgroupParent, c.id)
	return oci.Input{
		Args: proc.Args, Env: proc.Env(p.settings.defaultEnv(p.handler), hostname(p.pod), id.Home), Cwd: proc.WorkingDir,
		User: specs.User{UID: id.UID, GID: id.GID, AdditionalGids: id.Groups}, Terminal: s.Stdio.Terminal, RootFS: c.rootfs(),
		Security: s.Security.Context, Resources: s.Resources, BlockIO: m.supportedBlockIO(c, p), RDT: s.RDT, SeccompProfile: profile, DefaultSeccomp: p.handler.Seccomp,
		ProcessLabel: p.labels.process, MountLabel: p.labels.mount,
		Files: oci.Files{
			Hosts: p.pod.Hosts, Hostname: p.pod.Hostname, ResolvConf: p.pod.ResolvConf, Shm: p.pod.Shm, Localtime: p.settings.Localtime,
		},
		UserGIDs: c.userMaps.GIDs, Volumes: volumes, Mounts: mounts, Devices: devices, CgroupsPath: cgroups,
		Annotations: runtimeAnnotations(c, p),
		Base:        p.handler.Base, WritableCgroups: p.handler.WritableCgroups,
		OnlyOwnDevices: p.handler.PrivilegedWithoutHostDevices && !p.handler.AllDevicesAllowed,
	}, nil
}

// identify looks up the user of the first process in the root file system.
func (m *Manager) identify(c *container, p *plan) (containerspec.Identity, error) {
	accounts, err := containerspec.ReadAccounts(c.rootfs())
	if err != nil {
		return containerspec.Identity{}, err
	}
	id, err := accounts.Identify(p.process.User)
	if err != nil {
		return containerspec.Identity{}, err
	}
	c.setIdentity(id)
	return id, id.CheckMapped(c.userMaps)
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

// hostname returns the host name of the pod, or of the host if the pod has none.
func hostname(p Pod) string {
	if h := p.Config.GetHostname(); h != "" {
		return h
	}
	h, _ := os.Hostname()
	return h
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
