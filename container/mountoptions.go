package container

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

// checkMountOptions refuses what the handler's runtime would ignore, or fail at
// later with words of its own: a restriction that was asked for is applied or
// the container does not run.
func (m *Manager) checkMountOptions(handler string, c *cri.ContainerConfig) error {
	asks := func(mount *cri.Mount) bool { return mount.GetRecursiveReadOnly() || len(mount.GetMountOptions()) > 0 }
	if !slices.ContainsFunc(c.GetMounts(), asks) {
		return nil // after a start of the daemon, an answer may take a while
	}
	var known []string
	if m.cfg.MountOptions != nil {
		known = m.cfg.MountOptions(handler)
	}
	for i, mount := range c.GetMounts() {
		if mount.GetRecursiveReadOnly() && !slices.Contains(known, "rro") {
			return fmt.Errorf("config.mounts[%d].recursive_read_only: runtime handler %q or the kernel cannot do it: %w: %w",
				i, handler, crierrors.ErrRROUnsupported, errdefs.ErrFailedPrecondition)
		}
		if known == nil {
			continue // one that does not tell knows at least the usual ones
		}
		for _, o := range mount.GetMountOptions() {
			if !slices.Contains(known, o) {
				return fmt.Errorf("config.mounts[%d].mount_options: runtime handler %q does not know %q: %w",
					i, handler, o, errdefs.ErrFailedPrecondition)
			}
		}
	}
	return nil
}
