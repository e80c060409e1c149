package nri

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"strings"
	"time"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func podMessages(pods []Pod) []*api.PodSandbox {
	out := make([]*api.PodSandbox, len(pods))
	for i, p := range pods {
		out[i] = podMessage(p)
	}
	return out
}

func podMessage(p Pod) *api.PodSandbox {
	md := p.Config.GetMetadata()
	return &api.PodSandbox{
		Id: p.ID, Name: md.GetName(), Uid: md.GetUid(), Namespace: md.GetNamespace(),
		Labels: p.Config.GetLabels(), Annotations: p.Config.GetAnnotations(),
		RuntimeHandler: p.RuntimeHandler, Pid: uint32(p.PID), Ips: p.IPs,
		Linux: &api.LinuxPodSandbox{
			PodOverhead: limitsMessage(Limits{CRI: p.Overhead}), PodResources: limitsMessage(Limits{CRI: p.Resources}),
			CgroupParent: p.CgroupParent, Namespaces: api.FromOCILinuxNamespaces(p.Namespaces),
		},
	}
}

// containerEvent contains the messages of an event about a container.
type containerEvent struct {
	pod       *api.PodSandbox
	container *api.Container
}

func newContainerEvent(p Pod, c Container) (containerEvent, error) {
	spec, err := readSpec(c)
	if err != nil {
		return containerEvent{}, err
	}
	return containerEvent{podMessage(p), containerMessage(c, spec)}, nil
}

// readSpec returns the OCI config of a container. If the directory of the container has been
// removed, it returns an empty config, so that the event contains at least the ID.
func readSpec(c Container) (*specs.Spec, error) {
	if c.Spec == nil {
		return &specs.Spec{}, nil
	}
	spec, err := c.Spec()
	if errors.Is(err, fs.ErrNotExist) {
		return &specs.Spec{}, nil
	}
	return spec, err
}

// containerMessages omits and logs containers whose OCI configs cannot be read.
func containerMessages(ctx context.Context, containers []Container) []*api.Container {
	out := make([]*api.Container, 0, len(containers))
	for _, c := range containers {
		spec, err := readSpec(c)
		if err != nil {
			logOf(ctx).WithField("container", c.ID).WithError(err).Error("a synchronization of plugins omits the container")
			continue
		}
		out = append(out, containerMessage(c, spec))
	}
	return out
}

var states = map[State]api.ContainerState{
	Created: api.ContainerState_CONTAINER_CREATED,
	Running: api.ContainerState_CONTAINER_RUNNING,
	Stopped: api.ContainerState_CONTAINER_STOPPED,
}

func containerMessage(c Container, spec *specs.Spec) *api.Container {
	md := c.Config.GetMetadata()
	out := &api.Container{
		Id: c.ID, PodSandboxId: c.PodID, Name: md.GetName(), State: states[c.State],
		Labels: c.Config.GetLabels(), Annotations: annotations(c.Config, spec),
		Mounts: api.FromOCIMounts(spec.Mounts), Hooks: api.FromOCIHooks(spec.Hooks), Linux: linuxMessage(c, spec),
		Pid: uint32(c.PID), CreatedAt: nanos(c.CreatedAt), StartedAt: nanos(c.StartedAt), FinishedAt: nanos(c.FinishedAt),
		ExitCode: c.ExitCode, StatusReason: c.Reason, StatusMessage: c.Message,
		Image: &api.Image{Name: c.Image, Digest: digestOf(c.Image), ConfigDigest: c.ImageID},
	}
	for _, d := range c.Config.GetCDIDevices() {
		out.CDIDevices = append(out.CDIDevices, &api.CDIDevice{Name: d.GetName()})
	}
	if p := spec.Process; p != nil {
		out.Args, out.Env = p.Args, p.Env
		out.User = &api.User{Uid: p.User.UID, Gid: p.User.GID, AdditionalGids: p.User.AdditionalGids}
		for _, r := range p.Rlimits {
			out.Rlimits = append(out.Rlimits, &api.POSIXRlimit{Type: r.Type, Hard: r.Hard, Soft: r.Soft})
		}
	}
	return out
}

// annotations returns the annotations of the request and of the OCI config.
func annotations(c *cri.ContainerConfig, spec *specs.Spec) map[string]string {
	out := make(map[string]string, len(c.GetAnnotations())+len(spec.Annotations))
	maps.Copy(out, c.GetAnnotations())
	maps.Copy(out, spec.Annotations)
	return out
}

// nanos returns the time in nanoseconds since 1970, or 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// digestOf returns the digest of an image reference, or "".
func digestOf(ref string) string {
	_, digest, _ := strings.Cut(ref, "@")
	return digest
}

func linuxMessage(c Container, spec *specs.Spec) *api.LinuxContainer {
	out := &api.LinuxContainer{SeccompProfile: seccompProfile(c.Config.GetLinux().GetSecurityContext())}
	if p := spec.Process; p != nil {
		out.IoPriority = api.FromOCILinuxIOPriority(p.IOPriority)
		out.Scheduler = api.FromOCILinuxScheduler(p.Scheduler)
		if p.OOMScoreAdj != nil {
			out.OomScoreAdj = api.Int(*p.OOMScoreAdj)
		}
	}
	l := spec.Linux
	if l == nil {
		out.Resources = limitsMessage(c.Limits)
		return out
	}
	out.Namespaces, out.Devices = api.FromOCILinuxNamespaces(l.Namespaces), api.FromOCILinuxDevices(l.Devices)
	out.Resources = resourcesMessage(l.Resources, c.Limits)
	out.CgroupsPath, out.Sysctl = l.CgroupsPath, maps.Clone(l.Sysctl) // the library changes the map
	if l.Seccomp != nil {
		out.SeccompPolicy = api.FromOCILinuxSeccomp(l.Seccomp)
	}
	out.NetDevices = api.FromOCILinuxNetDevices(l.NetDevices)
	if r := l.IntelRdt; r != nil {
		out.Rdt = &api.LinuxRdt{ClosId: optionalString(r.ClosID), EnableMonitoring: api.Bool(r.EnableMonitoring)}
		if len(r.Schemata) > 0 {
			out.Rdt.Schemata = api.RepeatedString(r.Schemata)
		}
	}
	return out
}

func optionalString(s string) *api.OptionalString {
	if s == "" {
		return nil
	}
	return api.String(s)
}

func seccompProfile(sc *cri.LinuxContainerSecurityContext) *api.SecurityProfile {
	kinds := map[cri.SecurityProfile_ProfileType]api.SecurityProfile_ProfileType{
		cri.SecurityProfile_RuntimeDefault: api.SecurityProfile_RUNTIME_DEFAULT,
		cri.SecurityProfile_Unconfined:     api.SecurityProfile_UNCONFINED,
		cri.SecurityProfile_Localhost:      api.SecurityProfile_LOCALHOST,
	}
	p := sc.GetSeccomp()
	if p == nil {
		return nil
	}
	return &api.SecurityProfile{ProfileType: kinds[p.GetProfileType()], LocalhostRef: p.GetLocalhostRef()}
}
