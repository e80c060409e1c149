package oci

import (
	"maps"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// versionDevices has network devices, memory policies and RDT schemata.
const versionDevices = "1.3.0"

// Fit brings a config that somebody has changed after Build within what the
// machine allows, and gives it the version that its fields need. It returns
// where the machine allows less.
func (b *Builder) Fit(spec *specs.Spec) (warnings []string) {
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
		spec.Version = versionRecursive
	}
	return warnings
}

// Adjusted are the limits of a container in the making, has, with r laid over
// them, by the rules for either.
func (b *Builder) Adjusted(has, r *cri.LinuxContainerResources) (*Update, error) {
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

// Overlay adds limits that the CRI has no words for.
func (u *Update) Overlay(by *specs.LinuxResources) {
	if by == nil {
		return
	}
	if u.Resources == nil {
		u.Resources = &specs.LinuxResources{}
	}
	Overlay(u.Resources, by)
}

// Overlay lays those limits of by that are set over r. Device rules are not
// among them.
func Overlay(r, by *specs.LinuxResources) {
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

// ResolveCgroup is the path in the hierarchy of a cgroup that is named as in a
// config: a path, or slice:prefix:name where the runtime goes through systemd.
func (r *Runtime) ResolveCgroup(config string) (string, error) {
	if !r.SystemdCgroup {
		if !cleanAbsolute(config) || filepath.Clean(config) == "/" {
			return "", invalid("%q must be an absolute path without \"..\", not the root", config)
		}
		return filepath.Clean(config), nil
	}
	parts := strings.Split(config, ":")
	if len(parts) != 3 || parts[2] == "" || strings.ContainsAny(config, "/\x00") || (parts[0] != "" && !strings.HasSuffix(parts[0], ".slice")) {
		return "", invalid("%q must be of the form name.slice:prefix:name", config)
	}
	slice := parts[0]
	if slice == "" {
		slice = "system.slice" // as runc has it
	}
	path, name := "", ""
	for part := range strings.SplitSeq(strings.TrimSuffix(slice, ".slice"), "-") {
		name += part
		path += "/" + name + ".slice"
		name += "-"
	}
	unit := parts[2] + ".scope"
	if parts[1] != "" {
		unit = parts[1] + "-" + unit
	}
	return path + "/" + unit, nil
}
