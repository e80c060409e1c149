package restore

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/criserver/criserver/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// check returns an error if the checkpoint does not fit the new container. CRIU restores the memory of the processes,
// for example their environment, and settings of the OCI config. The settings of the new container must be equal.
func (u *unpacker) check(_ context.Context, t container.RestoreTarget) error {
	if u.info.Container.ImageID != t.ImageID {
		return mismatch("config.image is %s, the checkpoint was made from %s", t.ImageID, u.info.Container.ImageID)
	}
	if err := u.checkProcess(t.Config.Process); err != nil {
		return err
	}
	if err := checkSpecs(u.spec, t.Config); err != nil {
		return err
	}
	return checkImages(t.Images, t.Config)
}

// checkProcess compares the first process.
func (u *unpacker) checkProcess(p *specs.Process) error {
	old := u.spec.Process
	switch {
	case !slices.Equal(old.Args, p.Args):
		return mismatch("config.command and config.args are %q, the checkpoint has %q", p.Args, old.Args)
	case old.Cwd != p.Cwd:
		return mismatch("config.working_dir is %q, the checkpoint has %q", p.Cwd, old.Cwd)
	case old.Terminal != p.Terminal:
		return mismatch("config.tty is %t, the checkpoint has %t", p.Terminal, old.Terminal)
	case old.User.UID != p.User.UID || old.User.GID != p.User.GID:
		return mismatch("the user is %d:%d, the checkpoint has %d:%d", p.User.UID, p.User.GID, old.User.UID, old.User.GID)
	case !equalSets(old.User.AdditionalGids, p.User.AdditionalGids):
		return mismatch("the supplemental groups are %v, the checkpoint has %v", p.User.AdditionalGids, old.User.AdditionalGids)
	case old.NoNewPrivileges != p.NoNewPrivileges:
		return mismatch("no_new_privs is %t, the checkpoint has %t", p.NoNewPrivileges, old.NoNewPrivileges)
	case old.ApparmorProfile != p.ApparmorProfile:
		return mismatch("the AppArmor profile is %q, the checkpoint has %q", p.ApparmorProfile, old.ApparmorProfile)
	case !equalCapabilities(old.Capabilities, p.Capabilities):
		return mismatch("the capabilities and the capabilities of the checkpoint differ")
	}
	return compareEnv(old.Env, p.Env)
}

// compareEnv compares environments. The error names the first variable that differs, but not its value, which can be a
// secret.
func compareEnv(old, now []string) error {
	before, after := environ(old), environ(now)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if value, ok := before[name]; !ok || value != after[name] {
			return mismatch("config.envs: the variable %q has another value in the checkpoint", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[name]; !ok {
			return mismatch("config.envs: the variable %q of the checkpoint is missing", name)
		}
	}
	return nil
}

// environ returns variables "NAME=VALUE" by name.
func environ(list []string) map[string]string {
	m := make(map[string]string, len(list))
	for _, kv := range list {
		name, value, _ := strings.Cut(kv, "=")
		m[name] = value
	}
	return m
}

// checkSpecs compares the settings that CRIU restores from the checkpoint.
func checkSpecs(old, now *specs.Spec) error {
	if old.Root.Readonly != now.Root.Readonly {
		return mismatch("readonly_rootfs is %t, the checkpoint has %t", now.Root.Readonly, old.Root.Readonly)
	}
	switch before, after := old.Linux, now.Linux; {
	case !equalSets(before.MaskedPaths, after.MaskedPaths):
		return mismatch("masked_paths and the masked paths of the checkpoint differ")
	case !equalSets(before.ReadonlyPaths, after.ReadonlyPaths):
		return mismatch("readonly_paths and the read-only paths of the checkpoint differ")
	case !reflect.DeepEqual(before.Seccomp, after.Seccomp):
		return mismatch("the seccomp profile and the seccomp profile of the checkpoint differ")
	case !equalSets(namespaces(before), namespaces(after)):
		return mismatch("the namespaces are %v, the checkpoint has %v", namespaces(after), namespaces(before))
	case !equalSets(devices(before), devices(after)):
		return mismatch("the devices are %v, the checkpoint has %v", devices(after), devices(before))
	}
	return compareMounts(old.Mounts, now.Mounts)
}

// namespaces returns the kinds of the namespaces, and whether the container makes them or joins them.
func namespaces(l *specs.Linux) (list []string) {
	for _, n := range l.Namespaces {
		kind := "new "
		if n.Path != "" {
			kind = "shared "
		}
		list = append(list, kind+string(n.Type))
	}
	return list
}

// devices returns the paths of the devices.
func devices(l *specs.Linux) (list []string) {
	for _, d := range l.Devices {
		list = append(list, d.Path)
	}
	return list
}

// compareMounts compares the mount points, their types, and whether they are read-only. compareMounts ignores the
// sources of bind mounts, which are different in each pod.
func compareMounts(old, now []specs.Mount) error {
	before, after := mountTable(old), mountTable(now)
	for _, dest := range slices.Sorted(maps.Keys(after)) {
		switch was, ok := before[dest]; {
		case !ok:
			return mismatch("config.mounts: the mount at %q is not in the checkpoint", dest)
		case was != after[dest]:
			return mismatch("config.mounts: the mount at %q is %s, the checkpoint has %s", dest, after[dest], was)
		}
	}
	for _, dest := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[dest]; !ok {
			return mismatch("config.mounts: the mount at %q of the checkpoint is missing", dest)
		}
	}
	return nil
}

// mountTable describes the type of each mount, by mount point.
func mountTable(list []specs.Mount) map[string]string {
	m := make(map[string]string, len(list))
	for _, mount := range list {
		kind := mount.Type
		if isBind(mount) {
			kind = "bind"
		}
		if isReadOnly(mount) {
			kind = "read-only " + kind
		}
		m[mount.Destination] = kind + " mount"
	}
	return m
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

func isReadOnly(m specs.Mount) bool {
	return slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rro")
}

// equalCapabilities reports whether all sets of capabilities are equal.
func equalCapabilities(a, b *specs.LinuxCapabilities) bool {
	if a == nil || b == nil {
		return a == b
	}
	return equalSets(a.Bounding, b.Bounding) && equalSets(a.Effective, b.Effective) && equalSets(a.Inheritable, b.Inheritable) &&
		equalSets(a.Permitted, b.Permitted) && equalSets(a.Ambient, b.Ambient)
}

// equalSets reports whether two lists have the same elements. The order and repetitions do not matter.
func equalSets[T ~string | ~uint32](a, b []T) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}
