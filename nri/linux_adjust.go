package nri

import (
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// adjustLinux applies the changes of the Linux part of the OCI config.
func adjustLinux(spec *specs.Spec, a *api.LinuxContainerAdjustment) error {
	if a == nil {
		return nil
	}
	l := spec.Linux
	adjustDevices(l, a.GetDevices())
	for _, d := range a.GetResources().GetDevices() {
		resources(l).Devices = append(resources(l).Devices, deviceRule(d))
	}
	if path := a.GetCgroupsPath(); path != "" {
		l.CgroupsPath = path
	}
	if s := a.GetSeccompPolicy(); s != nil {
		l.Seccomp = seccomp(s)
	}
	if changes := a.GetSysctl(); len(changes) > 0 {
		l.Sysctl = cloneMap(l.Sysctl)
		adjustMap(l.Sysctl, changes)
	}
	adjustNetDevices(l, a.GetNetDevices())
	if p := a.GetIoPriority(); p != nil {
		spec.Process.IOPriority = nil
		if p.GetClass() != api.IOPrioClass_IOPRIO_CLASS_NONE {
			spec.Process.IOPriority = p.ToOCI()
		}
	}
	if s := a.GetScheduler(); s != nil {
		spec.Process.Scheduler = s.ToOCI()
	}
	if p := a.GetMemoryPolicy(); p != nil {
		l.MemoryPolicy = p.ToOCI()
	}
	if err := adjustRdt(l, a.GetRdt(), a.GetResources().GetRdtClass().GetValue()); err != nil {
		return err
	}
	return adjustNamespaces(l, a.GetNamespaces())
}

func resources(l *specs.Linux) *specs.LinuxResources {
	if l.Resources == nil {
		l.Resources = &specs.LinuxResources{}
	}
	return l.Resources
}

// cloneMap returns a copy of m that is not nil.
func cloneMap[V any](m map[string]V) map[string]V {
	if m == nil {
		return make(map[string]V)
	}
	return maps.Clone(m)
}

// adjustDevices also changes the device rules of the cgroup. A container may use the devices
// that plugins add. It may no longer use the devices that plugins remove, not even if it
// creates their device nodes itself.
func adjustDevices(l *specs.Linux, changes []*api.LinuxDevice) {
	for _, d := range changes {
		path, remove := d.IsMarkedForRemoval()
		for _, existing := range l.Devices {
			if existing.Path == path {
				removeDeviceRule(l, existing)
			}
		}
		l.Devices = slices.DeleteFunc(l.Devices, func(o specs.LinuxDevice) bool { return o.Path == path })
		if remove {
			continue
		}
		l.Devices = append(l.Devices, d.ToOCI())
		major, minor := d.GetMajor(), d.GetMinor()
		resources(l).Devices = append(resources(l).Devices, specs.LinuxDeviceCgroup{
			Allow: true, Type: d.GetType(), Major: &major, Minor: &minor, Access: d.AccessString(),
		})
	}
}

func removeDeviceRule(l *specs.Linux, d specs.LinuxDevice) {
	r := resources(l)
	r.Devices = slices.DeleteFunc(r.Devices, func(rule specs.LinuxDeviceCgroup) bool {
		return rule.Allow && rule.Type == d.Type && rule.Major != nil && *rule.Major == d.Major && rule.Minor != nil && *rule.Minor == d.Minor
	})
}

func deviceRule(d *api.LinuxDeviceCgroup) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: d.GetAllow(), Type: d.GetType(), Major: d.GetMajor().Get(), Minor: d.GetMinor().Get(), Access: d.GetAccess()}
}

func seccomp(s *api.LinuxSeccomp) *specs.LinuxSeccomp {
	out := &specs.LinuxSeccomp{
		DefaultAction: specs.LinuxSeccompAction(s.GetDefaultAction()), ListenerPath: s.GetListenerPath(),
		ListenerMetadata: s.GetListenerMetadata(), Syscalls: api.ToOCILinuxSyscalls(s.GetSyscalls()),
	}
	if v := s.GetDefaultErrno(); v != nil {
		errno := uint(v.GetValue())
		out.DefaultErrnoRet = &errno
	}
	for _, a := range s.GetArchitectures() {
		out.Architectures = append(out.Architectures, specs.Arch(a))
	}
	for _, f := range s.GetFlags() {
		out.Flags = append(out.Flags, specs.LinuxSeccompFlag(f))
	}
	return out
}

func adjustNetDevices(l *specs.Linux, changes map[string]*api.LinuxNetDevice) {
	if len(changes) == 0 {
		return
	}
	out := cloneMap(l.NetDevices)
	for k, d := range changes {
		if key, remove := api.IsMarkedForRemoval(k); remove {
			delete(out, key)
		} else if d != nil {
			out[k] = d.ToOCI()
		}
	}
	l.NetDevices = out
}

// adjustRdt sets the properties of a control group of resctrl. A class defines all properties,
// so a plugin may not set both.
func adjustRdt(l *specs.Linux, r *api.LinuxRdt, class string) error {
	id, schemata, monitor := r.GetClosId().Get(), r.GetSchemata().Get(), r.GetEnableMonitoring().Get()
	if r.GetRemove() {
		l.IntelRdt = nil
	}
	if id == nil && schemata == nil && monitor == nil {
		return nil
	}
	if class != "" {
		return fmt.Errorf("linux.rdt and the rdt_class %q cannot both be set: %w", class, errdefs.ErrInvalidArgument)
	}
	rdt := specs.LinuxIntelRdt{}
	if l.IntelRdt != nil {
		rdt = *l.IntelRdt
	}
	l.IntelRdt = &rdt
	if id != nil {
		l.IntelRdt.ClosID = *id
	}
	if schemata != nil {
		l.IntelRdt.Schemata = slices.Clone(*schemata)
	}
	if monitor != nil {
		l.IntelRdt.EnableMonitoring = *monitor
	}
	return nil
}

// namespaceTypes contains the types of namespaces in the OCI config.
var namespaceTypes = []specs.LinuxNamespaceType{
	specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace,
	specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace,
}

func adjustNamespaces(l *specs.Linux, changes []*api.LinuxNamespace) error {
	for _, n := range changes {
		name, remove := n.IsMarkedForRemoval()
		kind := specs.LinuxNamespaceType(name)
		if !slices.Contains(namespaceTypes, kind) {
			return fmt.Errorf("linux.namespaces: type %q is not one of %v: %w", name, namespaceTypes, errdefs.ErrInvalidArgument)
		}
		if kind == specs.MountNamespace || kind == specs.UserNamespace {
			return fmt.Errorf("linux.namespaces: the %s namespace of a container cannot be changed: %w", name, errdefs.ErrNotImplemented)
		}
		l.Namespaces = slices.DeleteFunc(slices.Clone(l.Namespaces), func(o specs.LinuxNamespace) bool { return o.Type == kind })
		if !remove {
			l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: kind, Path: n.GetPath()})
		}
	}
	return nil
}
