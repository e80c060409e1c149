package bundle

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/criserver/criserver/internal/rootpath"
	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/oci"
	"golang.org/x/sys/unix"
)

// Owner is a user and group of the host.
type Owner struct{ UID, GID uint32 }

// RootOwner returns the ids on the host of root in a user namespace with these maps.
// Without maps this is root of the host.
func RootOwner(maps userns.Maps) Owner {
	uid, gid, err := maps.Root()
	if err != nil {
		return Owner{}
	}
	return Owner{uid, gid}
}

// MakeContainerDir makes the directory of a container. No user of the host may enter it, because
// the files of images can be setuid. Root of the user namespace of the pod may pass
// through it, to the root file system.
func MakeContainerDir(dir string, root Owner) error {
	if err := os.Mkdir(dir, 0o700); err != nil || root == (Owner{}) {
		return err
	}
	if err := os.Chown(dir, 0, int(root.GID)); err != nil {
		return err
	}
	return os.Chmod(dir, 0o710)
}

// prepareRootFS makes the directories that the process and its image expect: the
// working directory and the volumes of the image, whose data is part of the writable
// layer. The directories belong to root. Links in the image cannot lead out of rootfs.
func prepareRootFS(rootfs, cwd string, volumes []string, mounts []oci.Mount, root Owner) error {
	for _, dir := range slices.Concat(volumes, []string{cwd}) {
		if isMounted(dir, mounts) {
			continue
		}
		f, err := rootpath.MkdirAllFor(rootfs, dir, 0o755, int(root.UID), int(root.GID))
		if err != nil {
			return fmt.Errorf("make directory %q in the root file system: %w", dir, err)
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// isMounted reports whether path lies in one of the mounts, and so not in the root file
// system.
func isMounted(path string, mounts []oci.Mount) bool {
	return slices.ContainsFunc(mounts, func(m oci.Mount) bool { return isWithin(path, filepath.Clean(m.Destination)) })
}

// isWithin reports whether path is dir or lies below dir.
func isWithin(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// inKernelDir reports whether path is in /proc, /sys or /dev. A volume of an image must
// not be mounted there, because it could uncover masked paths.
func inKernelDir(path string) bool {
	return slices.ContainsFunc([]string{"/proc", "/sys", "/dev"}, func(dir string) bool { return isWithin(path, dir) })
}

// writableVolumes returns mounts that keep the volumes of an image writable in a
// container with a read-only root file system. The data of the volumes is part of the
// writable layer, with the content and the owners that the image has there. Each volume
// is bind mounted onto itself, and stays writable when the root file system becomes
// read-only. A volume at the path of a requested mount is left out.
func writableVolumes(rootfs string, volumes []string, mounts []oci.Mount) ([]oci.Mount, error) {
	rootfs, err := filepath.EvalSymlinks(rootfs)
	if err != nil {
		return nil, err
	}
	forbidden := func(path string) bool { return path == "/" || isMounted(path, mounts) || inKernelDir(path) }
	var writable []oci.Mount
	for _, volume := range volumes {
		if forbidden(volume) {
			continue
		}
		source, inside, err := resolveInRootFS(rootfs, volume)
		if err != nil {
			return nil, fmt.Errorf("volume %q of the image: %w", volume, err)
		}
		if forbidden(inside) { // a link can lead to a forbidden path
			continue
		}
		writable = append(writable, oci.Mount{Source: source, Destination: inside})
	}
	slices.SortStableFunc(writable, func(a, b oci.Mount) int { return len(a.Destination) - len(b.Destination) })
	return writable, nil
}

// resolveInRootFS resolves the links in the path of a directory of the root file system. It returns the
// path on the host and the path inside. No process of the container runs yet that could
// change the links.
func resolveInRootFS(rootfs, path string) (source, inside string, err error) {
	f, err := rootpath.Open(rootfs, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	source, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return "", "", err
	}
	inside, ok := strings.CutPrefix(source, rootfs)
	if !ok {
		return "", "", fmt.Errorf("%s is not in %s", source, rootfs)
	}
	return source, filepath.Clean("/" + inside), nil
}

// MakeLogDir makes the directory of the log below the log directory of the pod.
func MakeLogDir(podDir, logPath string) error {
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
