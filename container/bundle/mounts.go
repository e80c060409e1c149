package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/host"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
)

// mountRules says how the mounts of a container are resolved.
type mountRules struct {
	// RefuseMissing refuses host paths that do not exist.
	RefuseMissing bool
	// Required are host paths that are always refused if they do not exist.
	Required []string
	// UserNS is the path of the user namespace of the pod, or "". UserMaps are its maps.
	UserNS   string
	UserMaps userns.Maps
	// Handler is the runtime handler of the pod. MapsSubmounts reports whether the runtime of a
	// handler can map the ids of the mounts below a mount; nil if every runtime can.
	Handler       string
	MapsSubmounts func(handler string) bool
}

// mounts looks up the host paths of the mounts of a request. imagePaths has the paths at which the
// image volumes are mounted, by the index of the mount. Errors name the field of the request.
func (rules mountRules) mounts(ctx context.Context, list []containerspec.Mount, imagePaths map[int]string) ([]oci.Mount, error) {
	mounts := make([]oci.Mount, 0, len(list))
	for i, requested := range list {
		if source := imagePaths[i]; source != "" {
			mounts = append(mounts, imageMount(requested, source))
			continue
		}
		mount, err := rules.hostMount(ctx, requested)
		if err != nil {
			return nil, fmt.Errorf("config.mounts[%d].host_path: %w", i, err)
		}
		if err := rules.mapMount(&mount, requested.IDMaps); err != nil {
			return nil, fmt.Errorf("config.mounts[%d].uidMappings: %w", i, err)
		}
		mounts = append(mounts, mount)
	}
	return mounts, nil
}

func (rules mountRules) hostMount(ctx context.Context, r containerspec.Mount) (oci.Mount, error) {
	source, err := rules.source(ctx, r.HostPath)
	if err != nil {
		return oci.Mount{}, err
	}
	if err := host.CheckPropagation(source, r.Propagation); err != nil {
		return oci.Mount{}, err
	}
	options, err := host.MountRestrictions(source)
	if err != nil {
		return oci.Mount{}, err
	}
	return oci.Mount{
		Source: source, Destination: r.Destination, ReadOnly: r.ReadOnly, RecursiveReadOnly: r.RecursiveReadOnly,
		Propagation: r.Propagation, Options: append(options, r.Options...),
	}, nil
}

// source resolves the links in a host path. If the path does not exist, source makes
// a directory, unless the operator requires the path to exist: the CRI wants
// an error, but the kubelet does not check hostPath volumes without a type, and pods
// rely on the directory that all runtimes have always made.
func (rules mountRules) source(ctx context.Context, path string) (string, error) {
	source, err := filepath.EvalSymlinks(path)
	if err == nil {
		return source, nil
	}
	if _, lerr := os.Lstat(path); lerr == nil || !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument) // includes a dangling link
	}
	if rules.RefuseMissing || slices.Contains(rules.Required, filepath.Clean(path)) {
		return "", fmt.Errorf("%q does not exist: %w", path, errdefs.ErrNotFound)
	}
	logrus.WithContext(ctx).WithField("path", path).Info("the host path of a mount does not exist: make a directory")
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// imageMount returns the mount of an image that is mounted at source. The mount is always
// read-only, also if the request does not ask for it, as the CRI defines for all images
// (Mount.image).
// Programs in it can run, as the users of image volumes expect, unless the mount options
// forbid it.
func imageMount(r containerspec.Mount, source string) oci.Mount {
	return oci.Mount{
		Source: source, Destination: r.Destination, ReadOnly: true, RecursiveReadOnly: r.RecursiveReadOnly,
		Propagation: r.Propagation, Options: append([]string{"nosuid", "nodev"}, r.Options...),
	}
}

// mapMount lets the runtime map the ids of a mount. It tries the mapping first: if the
// kernel cannot map the file system, the message of the runtime would not name the mount.
func (rules mountRules) mapMount(mount *oci.Mount, maps userns.Maps) error {
	if len(maps.UIDs) == 0 {
		return nil
	}
	mount.UIDMappings, mount.GIDMappings = specMappings(maps.UIDs), specMappings(maps.GIDs)
	if rules.UserNS == "" || !maps.Equal(rules.UserMaps) {
		return nil // the trial needs a user namespace with the same maps
	}
	submounts, err := host.CheckIDMap(mount.Source, rules.UserNS)
	if err != nil {
		return fmt.Errorf("host_path: %w", err)
	}
	if submounts && rules.MapsSubmounts != nil && !rules.MapsSubmounts(rules.Handler) {
		return fmt.Errorf("there are mounts below %s, whose ids runtime handler %q cannot map: %w", mount.Source, rules.Handler, errdefs.ErrFailedPrecondition)
	}
	mount.MapSubmounts = submounts
	return nil
}

func specMappings(list []userns.Mapping) []specs.LinuxIDMapping {
	out := make([]specs.LinuxIDMapping, len(list))
	for i, m := range list {
		out[i] = specs.LinuxIDMapping{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size}
	}
	return out
}
