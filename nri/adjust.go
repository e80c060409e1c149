package nri

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// applyAdjustment applies the changes of plugins to spec. It returns the changes that the
// runtime must validate and apply, such as limits.
func applyAdjustment(spec *specs.Spec, a *api.ContainerAdjustment) (*Adjustment, error) {
	if spec.Process == nil {
		spec.Process = &specs.Process{}
	}
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	adjustAnnotations(spec, a.GetAnnotations())
	spec.Process.Env = adjustEnv(spec.Process.Env, a.GetEnv())
	if args := a.GetArgs(); len(args) > 0 {
		spec.Process.Args = args
	}
	adjustRlimits(spec.Process, a.GetRlimits())
	adjustHooks(spec, a.GetHooks())
	adjustMounts(spec, a.GetMounts())
	if err := adjustLinux(spec, a.GetLinux()); err != nil {
		return nil, err
	}
	limits, err := parseLimits(a.GetLinux().GetResources())
	if err != nil {
		return nil, err
	}
	out := &Adjustment{
		CRI: limits.CRI, Extra: limits.Extra,
		OOMScoreAdj: a.GetLinux().GetOomScoreAdj().Get(), BlockIOClass: a.GetLinux().GetResources().GetBlockioClass().Get(),
		RDTClass: a.GetLinux().GetResources().GetRdtClass().Get(),
	}
	for _, d := range a.GetCDIDevices() {
		out.CDIDevices = append(out.CDIDevices, d.GetName())
	}
	return out, nil
}

// restoreRemovals adds the removals of environment variables and devices to the answer of the
// library. When a plugin removes a variable or device, the library removes it from the request
// that the next plugins receive, but its answer does not contain the removal.
func restoreRemovals(spec *specs.Spec, request *api.Container, a *api.ContainerAdjustment) {
	if a == nil || spec.Process == nil || spec.Linux == nil {
		return
	}
	var env []*api.KeyValue
	for _, e := range spec.Process.Env {
		name, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(request.GetEnv(), func(kept string) bool { return strings.HasPrefix(kept, name+"=") }) {
			env = append(env, &api.KeyValue{Key: api.MarkForRemoval(name)})
		}
	}
	a.Env = append(env, a.Env...)
	var devices []*api.LinuxDevice
	for _, d := range spec.Linux.Devices {
		if !slices.ContainsFunc(request.GetLinux().GetDevices(), func(kept *api.LinuxDevice) bool { return kept.GetPath() == d.Path }) {
			devices = append(devices, &api.LinuxDevice{Path: api.MarkForRemoval(d.Path)})
		}
	}
	if len(devices) > 0 {
		if a.Linux == nil {
			a.Linux = &api.LinuxContainerAdjustment{}
		}
		a.Linux.Devices = append(devices, a.Linux.Devices...)
	}
}

func adjustAnnotations(spec *specs.Spec, changes map[string]string) {
	if len(changes) == 0 {
		return
	}
	out := cloneMap(spec.Annotations)
	adjustMap(out, changes)
	spec.Annotations = out
}

// adjustMap applies removals first, because changes may remove a key and set it again.
func adjustMap[V any](m, changes map[string]V) {
	for k := range changes {
		if key, remove := api.IsMarkedForRemoval(k); remove {
			delete(m, key)
		}
	}
	for k, v := range changes {
		if _, remove := api.IsMarkedForRemoval(k); !remove {
			m[k] = v
		}
	}
}

// adjustEnv does not move variables that change, because later variables may be derived from
// them. The last change of a variable takes effect.
func adjustEnv(env []string, changes []*api.KeyValue) []string {
	if len(changes) == 0 {
		return env
	}
	last := make(map[string]*api.KeyValue, len(changes))
	for _, e := range changes {
		key, remove := e.IsMarkedForRemoval()
		if last[key] == nil || !remove { // a new value takes precedence over a removal
			last[key] = e
		}
	}
	var out []string
	appendLast := func(name string) {
		e := last[name]
		if _, remove := e.IsMarkedForRemoval(); !remove {
			out = append(out, e.ToOCI())
		}
	}
	done := make(map[string]bool)
	for _, old := range env {
		name, _, _ := strings.Cut(old, "=")
		switch {
		case last[name] == nil:
			out = append(out, old)
		case !done[name]:
			done[name] = true
			appendLast(name)
		}
	}
	for _, e := range changes {
		if name, _ := e.IsMarkedForRemoval(); !done[name] {
			done[name] = true
			appendLast(name)
		}
	}
	return out
}

func adjustRlimits(p *specs.Process, changes []*api.POSIXRlimit) {
	if len(changes) == 0 {
		return
	}
	out := slices.Clone(p.Rlimits) // containers share the default limits
	for _, r := range changes {
		out = slices.DeleteFunc(out, func(o specs.POSIXRlimit) bool { return o.Type == r.GetType() })
		out = append(out, specs.POSIXRlimit{Type: r.GetType(), Hard: r.GetHard(), Soft: r.GetSoft()})
	}
	p.Rlimits = out
}

func adjustHooks(spec *specs.Spec, changes *api.Hooks) {
	if changes.Hooks() == nil {
		return
	}
	if spec.Hooks == nil {
		spec.Hooks = &specs.Hooks{}
	}
	h := spec.Hooks
	for _, kind := range []struct {
		hooks *[]specs.Hook
		added []*api.Hook
	}{
		{&h.Prestart, changes.Prestart}, //nolint:staticcheck // plugins may still use it
		{&h.CreateRuntime, changes.CreateRuntime},
		{&h.CreateContainer, changes.CreateContainer},
		{&h.StartContainer, changes.StartContainer},
		{&h.Poststart, changes.Poststart},
		{&h.Poststop, changes.Poststop},
	} {
		for _, hook := range kind.added {
			*kind.hooks = append(*kind.hooks, hook.ToOCI())
		}
	}
}

// adjustMounts replaces mounts that have the same destination. It sorts the mounts so that a
// mount precedes the mounts below it.
func adjustMounts(spec *specs.Spec, changes []*api.Mount) {
	if len(changes) == 0 {
		return
	}
	mounts := slices.Clone(spec.Mounts)
	for _, m := range changes {
		destination, remove := m.IsMarkedForRemoval()
		mounts = slices.DeleteFunc(mounts, func(o specs.Mount) bool { return filepath.Clean(o.Destination) == filepath.Clean(destination) })
		if remove {
			continue
		}
		propagation := ""
		mounts = append(mounts, m.ToOCI(&propagation))
		// A mount propagates only if the root mount of the container propagates too.
		switch l := spec.Linux; {
		case propagation == "rshared":
			l.RootfsPropagation = "rshared"
		case propagation == "rslave" && l.RootfsPropagation != "rshared":
			l.RootfsPropagation = "rslave"
		}
	}
	slices.SortStableFunc(mounts, func(a, b specs.Mount) int { return cmp.Compare(depth(a.Destination), depth(b.Destination)) })
	spec.Mounts = mounts
}

// depth returns the number of path elements.
func depth(p string) int { return strings.Count(filepath.Clean(p), "/") }
