package nri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// message returns the message about a container. If the directory of the container has been
// removed, the message contains at least the IDs. It is nil if c is nil, for an event about a pod.
func (c *Container) message() (*api.Container, error) {
	if c == nil {
		return nil, nil
	}
	spec, err := c.Spec()
	if errors.Is(err, fs.ErrNotExist) {
		spec, err = &specs.Spec{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", c.Status.GetId(), err)
	}
	return c.messageWithSpec(spec), nil
}

// containerMessages omits and logs containers whose OCI configs cannot be read.
func containerMessages(ctx context.Context, containers []*Container) []*api.Container {
	out := make([]*api.Container, 0, len(containers))
	for _, c := range containers {
		message, err := c.message()
		if err != nil {
			logOf(ctx).WithField("container", c.Status.GetId()).WithError(err).Error("a synchronization of plugins omits the container")
			continue
		}
		out = append(out, message)
	}
	return out
}

// messageWithSpec returns the message about a container that has the OCI config spec.
func (c *Container) messageWithSpec(spec *specs.Spec) *api.Container {
	out := proto.CloneOf(c.Status)
	out.Name, out.Labels, out.Annotations = c.Config.GetMetadata().GetName(), c.Config.GetLabels(), annotations(c.Config, spec)
	out.Mounts, out.Hooks, out.Linux = api.FromOCIMounts(spec.Mounts), api.FromOCIHooks(spec.Hooks), linuxMessage(c, spec)
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

// linuxMessage returns the part of the message of a container that describes Linux.
func linuxMessage(c *Container, spec *specs.Spec) *api.LinuxContainer {
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
		out.Resources = c.Limits.Message()
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
