package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// bundle holds what must stay open until the runtime has read the config.
type bundle struct{ target *os.File }

func (b bundle) close() {
	if b.target != nil {
		_ = b.target.Close()
	}
}

// bundle looks up all that the config names, in the root file system and on the
// host, and writes the config.
func (m *Manager) bundle(ctx context.Context, c *container, p *plan) (_ bundle, err error) {
	in, err := m.input(ctx, c, p)
	if err != nil {
		return bundle{}, err
	}
	ns, b, err := m.namespaces(c, p.pod)
	if err != nil {
		return bundle{}, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	in.Namespaces = ns
	res, err := m.cfg.Builder.Build(in)
	if err != nil {
		return b, err
	}
	if err := m.injectDevices(c, res); err != nil {
		return b, err
	}
	inGuest(c.runtime, p.pod, res)
	for _, w := range res.Warnings {
		c.log().Warn(w)
	}
	spec, err := m.consult(ctx, c, p, res.Spec)
	if err != nil {
		return b, err
	}
	// Devices of vendors can have brought groups along.
	c.setGroups(spec.Process.User.AdditionalGids)
	if err := makeLogDir(p.pod.Config.GetLogDirectory(), c.rec.LogPath); err != nil {
		return b, err
	}
	if c.runtime.ScopeProperties {
		m.scope(c, p.pod).Apply(spec)
	}
	config, err := oci.Encode(spec)
	if err != nil {
		return b, err
	}
	c.mu.Lock()
	c.process = spec.Process
	c.mu.Unlock()
	return b, os.WriteFile(filepath.Join(c.dir, configFile), config, 0o600)
}

func (m *Manager) input(ctx context.Context, c *container, p *plan) (oci.Input, error) {
	sc := c.config.GetLinux().GetSecurityContext()
	files, err := readUserFiles(c.rootfs())
	if err != nil {
		return oci.Input{}, err
	}
	id, err := files.identify(sc, p.image.Config.User)
	if err != nil {
		return oci.Input{}, err
	}
	c.setIdentity(id)
	if err := checkMapped(id, p.pod); err != nil {
		return oci.Input{}, err
	}
	mounts, err := m.resolveMounts(ctx, c.config, p.volumes)
	if err == nil {
		err = m.mapMounts(mounts, c.config, p.pod)
	}
	if err == nil {
		err = m.relabel(c, p.labels, mounts)
	}
	if err != nil {
		return oci.Input{}, err
	}
	devices, err := m.resolveDevices(c.config, p.pod.UserNS != "")
	if err != nil {
		return oci.Input{}, err
	}
	profile, err := m.readSeccomp(sc)
	if err != nil {
		return oci.Input{}, err
	}
	if err := m.checkAppArmor(ctx, sc); err != nil {
		return oci.Input{}, err
	}
	cwd := workingDir(c.config, p.image.Config)
	if err := prepareRootFS(c.rootfs(), cwd, p.image.Config.Volumes, mounts, rootOf(p.pod.Config)); err != nil {
		return oci.Input{}, err
	}
	var volumes []oci.Mount
	if sc.GetReadonlyRootfs() {
		if volumes, err = writableVolumes(c.rootfs(), p.image.Config.Volumes, mounts); err != nil {
			return oci.Input{}, err
		}
	}
	cgroups, _ := c.runtime.CgroupsPath(p.pod.CgroupParent, c.id)
	return oci.Input{
		Args: commandOf(c.config, p.image.Config), Env: envOf(c.config, p.image.Config, hostname(p.pod), id.home), Cwd: cwd,
		User: specs.User{UID: id.uid, GID: id.gid, AdditionalGids: id.groups}, Terminal: c.config.GetTty(), RootFS: c.rootfs(),
		Security: sc, Resources: c.config.GetLinux().GetResources(), BlockIO: m.blockIO(c, p), RDT: p.classes.rdt, SeccompProfile: profile,
		ProcessLabel: p.labels.process, MountLabel: p.labels.mount,
		Files:    oci.Files{Hosts: p.pod.Hosts, Hostname: p.pod.Hostname, ResolvConf: p.pod.ResolvConf, Shm: p.pod.Shm},
		UserGIDs: userMaps(p.pod.Config).GIDs, Volumes: volumes, Mounts: mounts, Devices: devices, CgroupsPath: cgroups,
		Annotations: oci.AllowAnnotations(c.runtime.AllowedAnnotations, p.pod.Config.GetAnnotations(), c.config.GetAnnotations()),
	}, nil
}

func (c *container) setIdentity(id identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.facts.UID, c.facts.GID, c.facts.Groups = int64(id.uid), int64(id.gid), wide(id.groups)
}

func (c *container) setGroups(groups []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.facts.Groups = wide(groups)
}

func wide(ids []uint32) []int64 {
	var out []int64
	for _, id := range ids {
		out = append(out, int64(id))
	}
	return out
}

// hostname is the pod's, or the machine's where the pod has none.
func hostname(p Pod) string {
	if h := p.Config.GetHostname(); h != "" {
		return h
	}
	h, _ := os.Hostname()
	return h
}

// namespaces are the pod's; only the PID namespace is the container's choice.
func (m *Manager) namespaces(c *container, p Pod) (oci.Namespaces, bundle, error) {
	ns := oci.Namespaces{Net: p.NetNS, IPC: p.IPCNS, UTS: p.UTSNS, User: p.UserNS}
	opts := c.config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	switch opts.GetPid() {
	case cri.NamespaceMode_CONTAINER:
		ns.NewPID = true
	case cri.NamespaceMode_NODE:
	case cri.NamespaceMode_POD:
		ns.PID = p.PIDNS
		// POD is what a request says that says nothing; a pod without a PID
		// namespace to share leaves each container its own.
		ns.NewPID = p.PIDNS == "" && p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid() != cri.NamespaceMode_NODE
	case cri.NamespaceMode_TARGET:
		if c.runtime.Guest {
			return ns, bundle{}, fmt.Errorf("config.linux.security_context.namespace_options.pid TARGET: runtime handler %q cannot join another container: %w",
				c.runtime.Name, errdefs.ErrNotImplemented)
		}
		f, err := m.targetPID(opts.GetTargetId(), p.ID)
		if err != nil {
			return ns, bundle{}, fmt.Errorf("config.linux.security_context.namespace_options.target_id: %w", err)
		}
		// The open descriptor keeps the namespace meant, whatever becomes of the pid.
		ns.PID = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
		return ns, bundle{f}, nil
	default:
		return ns, bundle{}, invalid("config.linux.security_context.namespace_options.pid %d is unknown", opts.GetPid())
	}
	return ns, bundle{}, nil
}

// targetPID opens the PID namespace of another container of the same pod.
func (m *Manager) targetPID(id, pod string) (*os.File, error) {
	t, err := m.find(id)
	if err != nil {
		return nil, err
	}
	if t.rec.PodID != pod {
		return nil, invalid("container %q is in another pod", short(id))
	}
	init, _ := t.refs()
	f, err := os.Open("/proc/" + strconv.Itoa(init.PID) + "/ns/pid")
	if err == nil && init.Alive() { // asked after the opening: it was this process's
		return f, nil
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nil, fmt.Errorf("container %q does not run: %w", short(id), errdefs.ErrFailedPrecondition)
}
