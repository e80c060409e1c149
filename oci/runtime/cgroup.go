package runtime

import (
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups/systemd"
)

// CgroupsPath returns the cgroup of a container below parent: config is the cgroupsPath of the OCI
// config, and path is the path in the cgroup hierarchy.
func (r *Runtime) CgroupsPath(parent, id string) (config, path string) {
	if r.SystemdCgroup {
		slice := parent[strings.LastIndexByte(parent, '/')+1:]
		return slice + ":criserver:" + id, parent + "/criserver-" + id + ".scope"
	}
	path = parent + "/criserver-" + id
	return path, path
}

// ResolveCgroup returns the path in the cgroup hierarchy for the cgroupsPath of an OCI config. The
// cgroupsPath is a path, or with the systemd driver slice:prefix:name.
func (r *Runtime) ResolveCgroup(config string) (string, error) {
	if !r.SystemdCgroup {
		clean := filepath.Clean(config)
		if !filepath.IsAbs(config) || clean == "/" || strings.ContainsRune(config, 0) || slices.Contains(strings.Split(config, "/"), "..") {
			return "", fmt.Errorf("%q must be an absolute path without \"..\", not the root: %w", config, errdefs.ErrInvalidArgument)
		}
		return clean, nil
	}
	slice, unit, ok := splitUnit(config)
	if !ok {
		return "", fmt.Errorf("%q must be of the form name.slice:prefix:name: %w", config, errdefs.ErrInvalidArgument)
	}
	parent, err := systemd.ExpandSlice(slice)
	if err != nil {
		return "", fmt.Errorf("%q must be of the form name.slice:prefix:name: %w: %w", config, err, errdefs.ErrInvalidArgument)
	}
	return path.Join(parent, unit), nil
}

// splitUnit returns the slice and the scope of a cgroupsPath of the form slice:prefix:name. Like
// runc, it uses system.slice if the slice is empty.
func splitUnit(config string) (slice, scope string, ok bool) {
	parts := strings.Split(config, ":")
	if len(parts) != 3 || parts[2] == "" || strings.ContainsAny(config, "/\x00") {
		return "", "", false
	}
	scope = parts[2] + ".scope"
	if parts[1] != "" {
		scope = parts[1] + "-" + scope
	}
	return cmp.Or(parts[0], "system.slice"), scope, true
}
