package bundle

import (
	"context"
	"fmt"
	"os"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/hooks"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pod has the properties of a pod sandbox that the OCI configs of its containers depend on.
type Pod struct {
	ID             string
	Config         *cri.PodSandboxConfig
	RuntimeHandler string
	CgroupParent   string
	// IPCNS and UserNS are the paths of namespaces of the pod, or "" for the namespaces of the host.
	IPCNS, UserNS string
	// UserMaps are the maps of the user namespace.
	UserMaps userns.Maps
	// ProcessLabel and MountLabel are the SELinux labels of the pod, or "".
	ProcessLabel, MountLabel string
	// Files are the files of the pod that are bind mounted into its containers.
	Files oci.Files
}

// Request is a request for the OCI config of a new container. Everything in it is parsed.
type Request struct {
	ID     string
	RootFS string // the mounted root file system
	// ImageRef is the image as the user named it.
	ImageRef string
	Pod      Pod
	Spec     *containerspec.Spec
	Process  *containerspec.Process
	Runtime  *runtime.Runtime
	Handler  Handler
	Settings Settings
	Host     Host
	// Labels are the labels of the container: see Host.LabelsFor.
	Labels Labels
	// BlockIO are the limits of block I/O, or nil.
	BlockIO *specs.LinuxBlockIO
	// Volumes are the paths of the mounted images, by the index of the mount in Spec.
	Volumes map[int]string
	// Enter is called with the name of each stage that may take long.
	Enter func(stage string)
	Log   *logrus.Entry
}

// Input looks up everything that the OCI config names, in the root file system and on the host. It makes the
// directories that the process and its image expect. The result lacks the namespaces. The identity of the first
// process is valid also with an error, if the error is not about the user. Errors name the field of the request.
func (r *Request) Input(ctx context.Context) (_ oci.Input, id containerspec.Identity, err error) {
	ctx, step := steps.Start(ctx, steps.SpecResolve)
	defer step.EndWith(&err)
	s, proc := r.Spec, r.Process
	if id, err = r.identify(); err != nil {
		return oci.Input{}, id, err
	}
	mounts, err := r.mountRules().mounts(ctx, s.Mounts, r.Volumes)
	if err == nil {
		err = r.relabel(mounts)
	}
	if err != nil {
		return oci.Input{}, id, err
	}
	devices, err := r.deviceRules().devices(s)
	if err != nil {
		return oci.Input{}, id, err
	}
	profile, err := readSeccomp(s.Security.SeccompFile)
	if err != nil {
		return oci.Input{}, id, err
	}
	if err := r.Host.ensureAppArmor(ctx, s.Security.AppArmorProfile); err != nil {
		return oci.Input{}, id, err
	}
	if err := prepareRootFS(r.RootFS, proc.WorkingDir, proc.Volumes, mounts, RootOwner(r.Pod.UserMaps)); err != nil {
		return oci.Input{}, id, err
	}
	var volumes []oci.Mount
	if s.Security.ReadonlyRootFS {
		if volumes, err = writableVolumes(r.RootFS, proc.Volumes, mounts); err != nil {
			return oci.Input{}, id, err
		}
	}
	cgroups, _ := r.Runtime.CgroupsPath(r.Pod.CgroupParent, r.ID)
	files := r.Pod.Files
	files.Localtime = r.Settings.Localtime
	return oci.Input{
		Args: proc.Args, Env: proc.Env(r.defaultEnv(), Hostname(r.Pod.Config), id.Home), Cwd: proc.WorkingDir,
		User: specs.User{UID: id.UID, GID: id.GID, AdditionalGids: id.Groups}, Terminal: s.Stdio.Terminal, RootFS: r.RootFS,
		Security: s.Security.Context, Resources: s.Resources, BlockIO: r.supportedBlockIO(r.BlockIO), RDT: s.RDT,
		SeccompProfile: profile, DefaultSeccomp: r.Handler.Seccomp, ProcessLabel: r.Labels.Process, MountLabel: r.Labels.Mount, Files: files,
		UserGIDs: r.Pod.UserMaps.GIDs, Volumes: volumes, Mounts: mounts, Devices: devices, CgroupsPath: cgroups,
		Annotations: r.runtimeAnnotations(),
		Base:        r.Handler.Base, WritableCgroups: r.Handler.WritableCgroups,
		OnlyOwnDevices: r.Handler.PrivilegedWithoutHostDevices && !r.Handler.AllDevicesAllowed,
	}, id, nil
}

// Build makes the OCI config, with the changes of CDI devices and the hooks of the operator.
func (r *Request) Build(in oci.Input) (*specs.Spec, error) {
	res, err := r.Settings.Builder.Build(in)
	if err != nil {
		return nil, err
	}
	if err := r.Settings.CDI.Inject(res.Spec, r.Spec.CDIDevices); err != nil {
		return nil, fmt.Errorf("config.%w", err)
	}
	if err := r.Settings.Hooks.Add(res.Spec, hooks.Container{Annotations: r.annotations(), HasMounts: len(r.Spec.Mounts) > 0}); err != nil {
		return nil, err
	}
	for _, w := range res.Warnings {
		r.Log.Warn(w)
	}
	return res.Spec, nil
}

// identify looks up the user of the first process in the root file system.
func (r *Request) identify() (containerspec.Identity, error) {
	accounts, err := containerspec.ReadAccounts(r.RootFS)
	if err != nil {
		return containerspec.Identity{}, err
	}
	id, err := accounts.Identify(r.Process.User)
	if err != nil {
		return containerspec.Identity{}, err
	}
	return id, id.CheckMapped(r.Pod.UserMaps)
}

// mountRules returns how the mounts of the container are resolved.
func (r *Request) mountRules() mountRules {
	return mountRules{
		RefuseMissing: r.Settings.RefuseMissingHostPaths, Required: r.Settings.RequiredHostPaths, UserNS: r.Pod.UserNS, UserMaps: r.Pod.UserMaps,
		Handler: r.Pod.RuntimeHandler, MapsSubmounts: r.Settings.MapsSubmounts,
	}
}

// deviceRules returns which devices the container has.
func (r *Request) deviceRules() deviceRules {
	return deviceRules{
		Additional: r.Settings.AdditionalDevices, OwnerIsUser: r.Settings.DeviceOwnerIsUser, UserNS: r.Pod.UserNS != "",
		NoHostDevices: r.Handler.PrivilegedWithoutHostDevices,
	}
}

// Hostname returns the host name of a pod, or of the host if the pod has none.
func Hostname(p *cri.PodSandboxConfig) string {
	if h := p.GetHostname(); h != "" {
		return h
	}
	h, _ := os.Hostname()
	return h
}
