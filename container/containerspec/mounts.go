package containerspec

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/rootpath"
	"github.com/criserver/criserver/internal/userns"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

// Mount is a requested mount of a host path or of an image.
type Mount struct {
	// HostPath is "" for the mount of an image.
	HostPath string
	// Image is the reference to the image, and SubPath a path in the image. Image is ""
	// for the mount of a host path.
	Image, SubPath string
	// Destination is absolute and clean: a runtime could resolve ".." in another way
	// than the daemon, which looks for mounts below other mounts.
	Destination       string
	ReadOnly          bool
	RecursiveReadOnly bool
	Propagation       cri.MountPropagation
	// Options are from mountOptions.
	Options []string
	// IDMaps map the ids of the files, or are empty. For the mount of an image they are
	// empty, because the layers of the image have the ids of the pod already.
	IDMaps userns.Maps
	// Relabel sets the SELinux label of the container on all files of a host path.
	Relabel bool
}

// mountOptions are the options that a request may set. All of them restrict the mount.
var mountOptions = []string{
	"noexec", "nosuid", "nodev", "noatime", "nodiratime", "relatime", "nosymfollow", "ro",
}

func (p *parser) mounts() error {
	for i, m := range p.Config.GetMounts() {
		mount, err := parseMount(m)
		if err != nil {
			return fmt.Errorf("config.mounts[%d]: %w", i, err)
		}
		if mount.Image != "" {
			if len(mount.IDMaps.UIDs) > 0 && !mount.IDMaps.Equal(UserMaps(p.Pod)) {
				return invalid("config.mounts[%d].uidMappings and gidMappings of an image must be the pod sandbox's", i)
			}
			mount.IDMaps = userns.Maps{}
		}
		p.spec.Mounts = append(p.spec.Mounts, mount)
	}
	if p.Node == nil {
		return nil
	}
	if err := p.Node.checkMountOptions(p.spec.Mounts); err != nil {
		return err
	}
	return p.Node.checkIDMappedMounts(p.spec.Mounts)
}

func parseMount(m *cri.Mount) (Mount, error) {
	if err := checkMount(m); err != nil {
		return Mount{}, err
	}
	if err := checkMappings(m); err != nil {
		return Mount{}, err
	}
	subPath := m.GetImageSubPath()
	if m.GetImage() == nil {
		// The kubelet also sets image_sub_path for the other volumes of a pod with an image volume. Their host_path
		// contains the sub-path already.
		subPath = ""
	}
	return Mount{
		HostPath: m.GetHostPath(), Image: m.GetImage().GetImage(), SubPath: subPath, Destination: filepath.Clean(m.GetContainerPath()),
		ReadOnly: m.GetReadonly(), RecursiveReadOnly: m.GetRecursiveReadOnly(), Propagation: m.GetPropagation(), Options: m.GetMountOptions(),
		IDMaps:  userns.Maps{UIDs: mappings(m.GetUidMappings()), GIDs: mappings(m.GetGidMappings())},
		Relabel: m.GetSelinuxRelabel() && m.GetImage() == nil,
	}, nil
}

// checkMount checks the rules of the CRI.
func checkMount(m *cri.Mount) error {
	dst := m.GetContainerPath()
	switch {
	case !filepath.IsAbs(dst) || strings.ContainsRune(dst, 0):
		return invalid("container_path %q must be an absolute path without NUL", dst)
	case filepath.Clean(dst) == "/":
		return invalid("container_path must not be the root directory")
	case rootpath.TooLong(dst):
		return invalid("container_path %s", rootpath.LengthRule)
	case rootpath.TooLong(m.GetHostPath()):
		return invalid("host_path %s", rootpath.LengthRule)
	case m.GetImage() != nil && rootpath.TooLong(m.GetImageSubPath()):
		return invalid("image_sub_path %s", rootpath.LengthRule)
	case m.GetImage() != nil:
		if err := checkImageMount(m); err != nil {
			return err
		}
	case !cleanAbsolute(m.GetHostPath()):
		return invalid("host_path %q must be an absolute path without \"..\"", m.GetHostPath())
	}
	switch {
	case m.GetRecursiveReadOnly() && !m.GetReadonly():
		return invalid("recursive_read_only needs readonly")
	case m.GetRecursiveReadOnly() && m.GetPropagation() != cri.MountPropagation_PROPAGATION_PRIVATE:
		return invalid("recursive_read_only needs private propagation")
	}
	if _, known := cri.MountPropagation_name[int32(m.GetPropagation())]; !known {
		return invalid("propagation %d is unknown", m.GetPropagation())
	}
	for _, o := range m.GetMountOptions() {
		if !slices.Contains(mountOptions, o) {
			return invalid("mount_options: %q is not one of %s", o, strings.Join(mountOptions, ", "))
		}
	}
	return nil
}

func checkImageMount(m *cri.Mount) error {
	switch {
	case m.GetHostPath() != "":
		return invalid("host_path %q and image exclude each other", m.GetHostPath())
	case m.GetImage().GetImage() == "":
		return invalid("image.image is empty")
	case m.GetPropagation() == cri.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		return invalid("propagation of an image must not be bidirectional")
	case strings.ContainsRune(m.GetImageSubPath(), 0) || hasParent(m.GetImageSubPath()):
		// The image store resolves links inside the image.
		return invalid("image_sub_path %q must have no \"..\" and no NUL", m.GetImageSubPath())
	}
	return nil
}

// checkMappings checks the id mappings of a mount against the rules of the kernel.
func checkMappings(m *cri.Mount) error {
	if (len(m.GetUidMappings()) == 0) != (len(m.GetGidMappings()) == 0) {
		return invalid("uidMappings and gidMappings need each other")
	}
	if err := userns.Check(mappings(m.GetUidMappings())); err != nil {
		return invalid("uidMappings: %v", err)
	}
	if err := userns.Check(mappings(m.GetGidMappings())); err != nil {
		return invalid("gidMappings: %v", err)
	}
	return nil
}

// checkMountOptions refuses options that the runtime would ignore or refuse later with
// a less clear message. A requested restriction is applied, or the container is not
// created.
func (n *Node) checkMountOptions(mounts []Mount) error {
	needed := func(m Mount) bool { return m.RecursiveReadOnly || len(m.Options) > 0 }
	if !slices.ContainsFunc(mounts, needed) {
		return nil
	}
	var supported []string
	if n.MountOptions != nil {
		supported = n.MountOptions()
	}
	for i, m := range mounts {
		if m.RecursiveReadOnly && !slices.Contains(supported, "rro") {
			// The kubelet recognizes the text of ErrRROUnsupported.
			return fmt.Errorf("config.mounts[%d].recursive_read_only: runtime handler %q or the kernel does not support it: %w: %w",
				i, n.Handler, crierrors.ErrRROUnsupported, errdefs.ErrFailedPrecondition)
		}
		if supported == nil {
			continue // a runtime that does not report its options has at least the usual ones
		}
		for _, o := range m.Options {
			if !slices.Contains(supported, o) {
				return fmt.Errorf("config.mounts[%d].mount_options: runtime handler %q does not support %q: %w",
					i, n.Handler, o, errdefs.ErrFailedPrecondition)
			}
		}
	}
	return nil
}

// checkIDMappedMounts refuses id mappings for a handler without support: its runtime
// could ignore the mappings.
func (n *Node) checkIDMappedMounts(mounts []Mount) error {
	for i, m := range mounts {
		if len(m.IDMaps.UIDs) == 0 || n.IDMappedMounts == nil {
			continue
		}
		if err := n.IDMappedMounts(); err != nil {
			return fmt.Errorf("config.mounts[%d].uidMappings: runtime handler %q cannot map the ids of mounts: %w: %w",
				i, n.Handler, err, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// cleanAbsolute accepts a trailing slash, which people write for directories.
func cleanAbsolute(p string) bool {
	return filepath.IsAbs(p) && !strings.ContainsRune(p, 0) && !hasParent(p)
}

func hasParent(p string) bool { return slices.Contains(strings.Split(p, "/"), "..") }
