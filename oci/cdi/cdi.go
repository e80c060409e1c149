// Package cdi gives containers the devices of the Container Device Interface:
// what a vendor's spec file says a device needs (nodes, mounts, environment,
// hooks, groups) is put into an OCI config. Spec files are the operator's, as
// trusted as the daemon's own configuration; names of devices are the request's.
package cdi

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

// maxDevices bounds the devices of one request.
const maxDevices = 1024

// versionNetDevices is that of the first OCI config with network devices.
const versionNetDevices = "1.3.0"

// Registry finds devices in spec files. A nil one has none.
type Registry struct{ dirs []string }

// NewRegistry returns a registry over the *.json and *.yaml files in dirs, of
// which later ones win. A directory need not exist. Without any, every device is
// refused.
func NewRegistry(dirs []string) *Registry { return &Registry{dirs: slices.Clone(dirs)} }

// Names lists the devices of a request: those that it names, and those in
// annotations with the prefix cdi.k8s.io/, where kubelets put them before the
// CRI had a field. Each is named once. ErrInvalidArgument where one has not the
// form vendor/class=name.
func Names(requested []string, annotations map[string]string) ([]string, error) {
	var names []string
	add := func(where, name string) error {
		if !parser.IsQualifiedName(name) {
			return fmt.Errorf("%s: %q is not a device's name of the form vendor/class=name: %w", where, name, errdefs.ErrInvalidArgument)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		return nil
	}
	for i, name := range requested {
		if err := add(fmt.Sprintf("CDI_devices[%d].name", i), name); err != nil {
			return nil, err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if !strings.HasPrefix(key, cdi.AnnotationPrefix) {
			continue
		}
		for name := range strings.SplitSeq(annotations[key], ",") {
			if err := add(fmt.Sprintf("annotations[%q]", key), name); err != nil {
				return nil, err
			}
		}
	}
	if len(names) > maxDevices {
		return nil, fmt.Errorf("CDI_devices: %d devices, more than %d: %w", len(names), maxDevices, errdefs.ErrInvalidArgument)
	}
	return names, nil
}

// Inject changes a config so that its container has the devices. The spec files
// are read for each call that names any: a device plugin may have written one a
// moment before, which a watch could not promise to have seen. ErrNotFound names
// the devices that no file has, and the files that could not be used.
func (r *Registry) Inject(s *specs.Spec, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if r == nil || len(r.dirs) == 0 {
		return fmt.Errorf("CDI_devices: the daemon is configured without directories of CDI specs: %w", errdefs.ErrFailedPrecondition)
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(r.dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return fmt.Errorf("read CDI specs: %w", err)
	}
	unknown, err := cache.InjectDevices(s, names...)
	if len(unknown) > 0 {
		return fmt.Errorf("CDI_devices: unknown device %s: no usable spec in %s has it%s: %w",
			quoted(unknown), strings.Join(r.dirs, ", "), troubles(cache), errdefs.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("CDI_devices: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if len(s.Linux.NetDevices) > 0 {
		s.Version = versionNetDevices
	}
	return nil
}

func quoted(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(out, ", ")
}

// troubles says which files could not be used, as a missing device may be in one
// of them.
func troubles(c *cdi.Cache) string {
	errs := c.GetErrors()
	if len(errs) == 0 {
		return ""
	}
	var said []string
	for _, path := range slices.Sorted(maps.Keys(errs)) {
		said = append(said, fmt.Sprintf("%s: %v", filepath.Base(path), errs[path][0]))
	}
	return " (" + strings.Join(said, "; ") + ")"
}
