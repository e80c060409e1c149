// Package cdi adds the devices of the Container Device Interface to OCI configs: nodes, mounts,
// environment variables, hooks and groups from the spec file of a vendor. Spec files belong to
// the operator and are as trusted as the daemon's configuration. The names of devices come from
// the request.
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

// maxDevices is the maximum number of devices of one request.
const maxDevices = 1024

// versionNetDevices is the first version of OCI configs with network devices.
const versionNetDevices = "1.3.0"

// Registry finds devices in spec files. A nil Registry has none.
type Registry struct{ dirs []string }

// NewRegistry returns a Registry of the *.json and *.yaml files in dirs. Files in later
// directories take precedence. A directory need not exist. Without directories, the Registry
// refuses every device.
func NewRegistry(dirs []string) *Registry { return &Registry{dirs: slices.Clone(dirs)} }

// Names returns the devices of a request without duplicates: those that the request names, and
// those in annotations with the prefix cdi.k8s.io/, which kubelets used before the CRI had a
// field. It returns ErrInvalidArgument for names that do not have the form vendor/class=name.
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

// Inject adds devices to a config. It reads the spec files at each call, because a device
// plugin may have written one just before. It returns ErrNotFound with the names of unknown
// devices and of files that could not be used.
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
			quoted(unknown), strings.Join(r.dirs, ", "), fileErrors(cache), errdefs.ErrNotFound)
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

// fileErrors describes the files that could not be used, because a missing device may be in one
// of them.
func fileErrors(c *cdi.Cache) string {
	errs := c.GetErrors()
	if len(errs) == 0 {
		return ""
	}
	var messages []string
	for _, path := range slices.Sorted(maps.Keys(errs)) {
		messages = append(messages, fmt.Sprintf("%s: %v", filepath.Base(path), errs[path][0]))
	}
	return " (" + strings.Join(messages, "; ") + ")"
}
