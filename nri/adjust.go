package nri

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// adjust makes in spec the changes that plugins want. What the daemon has rules
// for, limits above all, is returned and left to it.
func adjust(spec *specs.Spec, a *api.ContainerAdjustment) (Adjustment, error) {
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
		return Adjustment{}, err
	}
	out := Adjustment{
		OOMScoreAdj: a.GetLinux().GetOomScoreAdj().Get(), BlockIOClass: a.GetLinux().GetResources().GetBlockioClass().Get(),
		RDTClass: a.GetLinux().GetResources().GetRdtClass().Get(),
	}
	for _, d := range a.GetCDIDevices() {
		out.CDIDevices = append(out.CDIDevices, d.GetName())
	}
	var err error
	out.Limits, out.Extra, err = limitsOf(a.GetLinux().GetResources())
	return out, err
}

// addRemovals completes what the library collected: it takes the variables and
// devices that a plugin removes out of the request, for plugins after that one,
// and forgets them in the answer.
func addRemovals(spec *specs.Spec, request *api.Container, a *api.ContainerAdjustment) {
	if a == nil || spec.Process == nil || spec.Linux == nil {
		return
	}
	var env []*api.KeyValue
	for _, e := range spec.Process.Env {
		name, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(request.GetEnv(), func(left string) bool { return strings.HasPrefix(left, name+"=") }) {
			env = append(env, &api.KeyValue{Key: api.MarkForRemoval(name)})
		}
	}
	a.Env = append(env, a.Env...)
	var devices []*api.LinuxDevice
	for _, d := range spec.Linux.Devices {
		if !slices.ContainsFunc(request.GetLinux().GetDevices(), func(left *api.LinuxDevice) bool { return left.GetPath() == d.Path }) {
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
	out := maps.Clone(spec.Annotations)
	if out == nil {
		out = make(map[string]string)
	}
	adjustMap(out, changes)
	spec.Annotations = out
}

// adjustMap does removals first: one key may be removed and set anew.
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

// adjustEnv keeps the place of a variable that changes, as a later one may be
// made from it; the last change of a name counts.
func adjustEnv(env []string, changes []*api.KeyValue) []string {
	if len(changes) == 0 {
		return env
	}
	last := make(map[string]*api.KeyValue, len(changes))
	for _, e := range changes {
		key, remove := e.IsMarkedForRemoval()
		if set := last[key]; set == nil || !remove { // set wins over removed
			last[key] = e
		}
	}
	var out []string
	put := func(name string) {
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
			put(name)
		}
	}
	for _, e := range changes {
		if name, _ := e.IsMarkedForRemoval(); !done[name] {
			done[name] = true
			put(name)
		}
	}
	return out
}

func adjustRlimits(p *specs.Process, changes []*api.POSIXRlimit) {
	if len(changes) == 0 {
		return
	}
	out := slices.Clone(p.Rlimits) // they are the daemon's defaults
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
		to   *[]specs.Hook
		from []*api.Hook
	}{
		{&h.Prestart, changes.Prestart}, //nolint:staticcheck // plugins may still ask for it
		{&h.CreateRuntime, changes.CreateRuntime},
		{&h.CreateContainer, changes.CreateContainer},
		{&h.StartContainer, changes.StartContainer},
		{&h.Poststart, changes.Poststart},
		{&h.Poststop, changes.Poststop},
	} {
		for _, hook := range kind.from {
			*kind.to = append(*kind.to, hook.ToOCI())
		}
	}
}

// adjustMounts replaces what was at the same place. Parents come before what
// lies below them.
func adjustMounts(spec *specs.Spec, changes []*api.Mount) {
	if len(changes) == 0 {
		return
	}
	mounts := slices.Clone(spec.Mounts)
	for _, m := range changes {
		at, remove := m.IsMarkedForRemoval()
		mounts = slices.DeleteFunc(mounts, func(o specs.Mount) bool { return filepath.Clean(o.Destination) == filepath.Clean(at) })
		if remove {
			continue
		}
		propagation := ""
		mounts = append(mounts, m.ToOCI(&propagation))
		// What spreads has to pass the root of the container's mounts.
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

func depth(p string) int { return strings.Count(filepath.Clean(p), "/") }
