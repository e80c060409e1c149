package oci

import (
	"maps"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// versionDevices is the first version with network devices, memory policies and RDT schemata.
const versionDevices = "1.3.0"

// FitToHost limits a config that was changed after Build to the limits of the host, and sets the
// version that the fields of the config need. It returns warnings about values that it has
// lowered.
func (b *Builder) FitToHost(spec *specs.Spec) (warnings []string) {
	if p := spec.Process; p != nil {
		if p.OOMScoreAdj != nil {
			adj, warning := b.OOMScoreAdj(int64(*p.OOMScoreAdj))
			p.OOMScoreAdj = &adj
			if warning != "" {
				warnings = append(warnings, warning)
			}
		}
		var lowered []string
		p.Rlimits, lowered = b.host.FitRlimits(p.Rlimits)
		warnings = append(warnings, lowered...)
	}
	switch l := spec.Linux; {
	case len(l.NetDevices) > 0, l.MemoryPolicy != nil, l.IntelRdt != nil && (l.IntelRdt.EnableMonitoring || len(l.IntelRdt.Schemata) > 0):
		spec.Version = versionDevices
	case spec.Process != nil && (spec.Process.Scheduler != nil || spec.Process.IOPriority != nil) && spec.Version == versionBase:
		spec.Version = versionRecursiveMounts
	}
	return warnings
}

// Adjust returns the limits of a new container with the limits r applied to the limits has.
// Both r and the result must be valid.
func (b *Builder) Adjust(has, r *cri.LinuxContainerResources) (*Update, error) {
	const field = "linux.resources"
	u := &Update{Now: merge(has, r)}
	for _, limits := range []*cri.LinuxContainerResources{r, u.Now} {
		if err := b.CheckResources(field, limits); err != nil {
			return nil, err
		}
	}
	var err error
	u.Resources, u.Warnings, err = b.translate(field, u.Now)
	return u, err
}

// Merge adds limits that have no field in the CRI.
func (u *Update) Merge(by *specs.LinuxResources) {
	if by == nil {
		return
	}
	if u.Resources == nil {
		u.Resources = &specs.LinuxResources{}
	}
	MergeResources(u.Resources, by)
}

// MergeResources copies the limits that are set in by to r. It does not copy device rules.
func MergeResources(r, by *specs.LinuxResources) {
	if by == nil {
		return
	}
	if m := by.Memory; m != nil {
		if r.Memory == nil {
			r.Memory = &specs.LinuxMemory{}
		}
		to := r.Memory
		set(&to.Limit, m.Limit)
		set(&to.Reservation, m.Reservation)
		set(&to.Swap, m.Swap)
		set(&to.Kernel, m.Kernel) //nolint:staticcheck // plugins may still set it
		set(&to.KernelTCP, m.KernelTCP)
		set(&to.Swappiness, m.Swappiness)
		set(&to.DisableOOMKiller, m.DisableOOMKiller)
		set(&to.UseHierarchy, m.UseHierarchy)
	}
	if c := by.CPU; c != nil {
		if r.CPU == nil {
			r.CPU = &specs.LinuxCPU{}
		}
		set(&r.CPU.RealtimeRuntime, c.RealtimeRuntime)
		set(&r.CPU.RealtimePeriod, c.RealtimePeriod)
	}
	if by.Pids != nil {
		r.Pids = by.Pids
	}
	if len(by.Unified) > 0 {
		r.Unified = maps.Clone(r.Unified)
		if r.Unified == nil {
			r.Unified = make(map[string]string)
		}
		maps.Copy(r.Unified, by.Unified)
	}
}

func set[T any](to **T, v *T) {
	if v != nil {
		*to = v
	}
}
