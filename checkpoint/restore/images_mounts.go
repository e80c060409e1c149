package restore

import (
	"path"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mnt"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// checkMount compares a mount with the mounts of the OCI config. runc adds mounts for masked and read-only paths,
// devices and the terminal. These mounts are bind mounts or an empty tmpfs.
func checkMount(e *mnt.MntEntry, config *specs.Spec) error {
	dest := path.Clean("/" + e.GetMountpoint())
	kind := mnt.Fstype(e.GetFstype()) //nolint:gosec // a number of an enumeration
	readOnly := (e.GetFlags()|e.GetSbFlags())&unix.MS_RDONLY != 0
	if dest == "/" {
		if config.Root.Readonly && !readOnly {
			return mismatch("the root file system can be written, but readonly_rootfs is set")
		}
		return nil
	}
	for _, m := range config.Mounts {
		if path.Clean(m.Destination) != dest {
			continue
		}
		// The tmpfs above the cgroup v1 hierarchies is writable. Each hierarchy is a separate, read-only mount in it.
		if isReadOnly(m) && !readOnly && (m.Type != "cgroup" || kind != mnt.Fstype_TMPFS) {
			return mismatch("the mount at %q can be written, but is read-only in the config", dest)
		}
		return checkType(e, m)
	}
	if strings.HasPrefix(dest, "/sys/fs/cgroup/") && !readOnly && hasReadOnlyCgroups(config) {
		return mismatch("the mount at %q can be written, but is read-only in the config", dest)
	}
	known := isOneOf(dest, config.Linux.MaskedPaths) || isOneOf(dest, config.Linux.ReadonlyPaths) || isOneOf(dest, devices(config.Linux)) ||
		dest == "/dev/console" && config.Process.Terminal || strings.HasPrefix(dest, "/sys/fs/cgroup/")
	if !known {
		return mismatch("the config has no mount at %q", dest)
	}
	if e.GetExtKey() != "" {
		return nil // a bind mount, whose source CRIU receives from the runtime
	}
	switch kind {
	case mnt.Fstype_PROC, mnt.Fstype_SYSFS, mnt.Fstype_TMPFS, mnt.Fstype_DEVPTS, mnt.Fstype_CGROUP, mnt.Fstype_CGROUP2, mnt.Fstype_MQUEUE:
		return nil
	}
	return mismatch("the mount at %q has the type %s", dest, kind)
}

// checkType compares the type of a mount with the OCI config. A bind mount is external: CRIU receives its source from
// the runtime.
func checkType(e *mnt.MntEntry, m specs.Mount) error {
	if isBind(m) {
		if e.GetExtKey() == "" && !e.GetExtMount() {
			return mismatch("the mount at %q is not a bind mount", m.Destination)
		}
		return nil
	}
	types := map[string]mnt.Fstype{
		"proc": mnt.Fstype_PROC, "sysfs": mnt.Fstype_SYSFS, "tmpfs": mnt.Fstype_TMPFS, "devpts": mnt.Fstype_DEVPTS, "mqueue": mnt.Fstype_MQUEUE,
		"cgroup2": mnt.Fstype_CGROUP2,
	}
	kind := mnt.Fstype(e.GetFstype()) //nolint:gosec // a number of an enumeration
	if m.Type == "cgroup" && (kind == mnt.Fstype_TMPFS || kind == mnt.Fstype_CGROUP || kind == mnt.Fstype_CGROUP2 || e.GetExtKey() != "") {
		return nil
	}
	if want, ok := types[m.Type]; !ok || kind != want {
		return mismatch("the mount at %q has the type %s, but is %s in the config", m.Destination, kind, m.Type)
	}
	return nil
}

// hasReadOnlyCgroups reports whether the config has a read-only mount of the cgroup hierarchies.
func hasReadOnlyCgroups(config *specs.Spec) bool {
	return slices.ContainsFunc(config.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" && isReadOnly(m) })
}

// isOneOf reports whether dest is one of the paths.
func isOneOf(dest string, paths []string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return path.Clean(p) == dest })
}
