package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/rootpath"
	"github.com/criserver/criserver/oci"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// resolveMounts looks up the host paths of the requested mounts. Where images
// are mounted is known already, by the index of the mount.
func (m *Manager) resolveMounts(ctx context.Context, c *cri.ContainerConfig, images map[int]string) ([]oci.Mount, error) {
	mounts := make([]oci.Mount, 0, len(c.GetMounts()))
	for i, r := range c.GetMounts() {
		if source := images[i]; source != "" {
			mounts = append(mounts, imageMount(r, source))
			continue
		}
		mount, err := m.hostMount(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("config.mounts[%d].host_path: %w", i, err)
		}
		mounts = append(mounts, mount)
	}
	return mounts, nil
}

func (m *Manager) hostMount(ctx context.Context, r *cri.Mount) (oci.Mount, error) {
	source, err := m.mountSource(ctx, r.GetHostPath())
	if err != nil {
		return oci.Mount{}, err
	}
	if err := oci.CheckPropagation(source, r.GetPropagation()); err != nil {
		return oci.Mount{}, err
	}
	options, err := oci.Restrictions(source)
	if err != nil {
		return oci.Mount{}, err
	}
	return oci.Mount{
		Source: source, Destination: filepath.Clean(r.GetContainerPath()),
		ReadOnly: r.GetReadonly(), RecursiveReadOnly: r.GetRecursiveReadOnly(),
		Propagation: r.GetPropagation(), Options: append(options, r.GetMountOptions()...),
	}, nil
}

// mountSource is the real path behind links. A missing one becomes a directory
// unless the operator has it otherwise: the CRI wants an error, but the kubelet
// leaves a hostPath volume of no type unchecked, and pods rely on what all
// runtimes have always done then.
func (m *Manager) mountSource(ctx context.Context, path string) (string, error) {
	source, err := filepath.EvalSymlinks(path)
	if err == nil {
		return source, nil
	}
	if _, lerr := os.Lstat(path); lerr == nil || !errors.Is(err, fs.ErrNotExist) {
		return "", invalid("%v", err) // a dangling link too is the caller's mistake
	}
	if m.cfg.RefuseMissingHostPaths {
		return "", fmt.Errorf("%q does not exist: %w", path, errdefs.ErrNotFound)
	}
	logrus.WithContext(ctx).WithField("path", path).Info("host path of a mount is missing: making a directory")
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// prepareRootFS makes the directories that the process and its image expect:
// the working directory, and the image's volumes, whose data is part of the
// writable layer; they are root's. Links in the image cannot lead out of rootfs.
func prepareRootFS(rootfs, cwd string, volumes map[string]struct{}, mounts []oci.Mount, root owner) error {
	if err := checkDeclared(volumes); err != nil {
		return err
	}
	if rootpath.TooLong(cwd) {
		return invalid("working directory %s", rootpath.LengthRule)
	}
	dirs := make([]string, 0, len(volumes)+1)
	for v := range volumes {
		if !filepath.IsAbs(v) || mounted(v, mounts) {
			continue
		}
		dirs = append(dirs, v)
	}
	if !mounted(cwd, mounts) {
		dirs = append(dirs, cwd)
	}
	for _, d := range dirs {
		f, err := rootpath.MkdirAllFor(rootfs, filepath.Clean(d), 0o755, int(root.uid), int(root.gid))
		if err != nil {
			return fmt.Errorf("make directory %q in the root file system: %w", d, err)
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// mounted says whether path lies in one of the mounts, where it is not the root
// file system's matter.
func mounted(path string, mounts []oci.Mount) bool {
	for _, m := range mounts {
		dst := filepath.Clean(m.Destination)
		if path == dst || strings.HasPrefix(path, dst+"/") {
			return true
		}
	}
	return false
}

// makeLogDir makes the directory of the log below the pod's, which the kubelet
// has made.
func makeLogDir(podDir, logPath string) error {
	if logPath == "" {
		return nil
	}
	if err := os.MkdirAll(podDir, 0o755); err != nil {
		return fmt.Errorf("log directory: %w", err)
	}
	rel, err := filepath.Rel(podDir, filepath.Dir(logPath))
	if err != nil {
		return fmt.Errorf("log directory: %w", err)
	}
	f, err := rootpath.MkdirAll(podDir, rel, 0o755)
	if err != nil {
		return fmt.Errorf("log directory: %w", err)
	}
	return f.Close()
}
