package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxDevices is the maximum number of devices in a requested directory.
const maxDevices = 4096

// Devices looks up a device node of the host, or all device nodes in a directory.
// target is the path in the container. access is made of r, w and m; "" means all. The
// messages of errors begin with the name of the field in the request.
func Devices(hostPath, target, access string) ([]oci.Device, error) {
	info, err := os.Stat(hostPath)
	if err != nil {
		return nil, fmt.Errorf("host_path: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if info.IsDir() {
		dir, err := filepath.EvalSymlinks(hostPath)
		if err != nil {
			return nil, fmt.Errorf("host_path: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		found, err := deviceDir(dir, target, access)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("host_path %q is a directory without devices: %w", hostPath, errdefs.ErrInvalidArgument)
		}
		return found, err
	}
	dev, ok := device(hostPath, target, access)
	if !ok {
		return nil, fmt.Errorf("host_path %q is not a device: %w", hostPath, errdefs.ErrInvalidArgument)
	}
	return []oci.Device{dev}, nil
}

// AllDevices returns every device node below /dev, for privileged containers. It omits devices
// that each container has itself.
func AllDevices() ([]oci.Device, error) { return deviceDir("/dev", "/dev", "rwm") }

func deviceDir(dir, target, access string) ([]oci.Device, error) {
	var found []oci.Device
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			return nil
		case err != nil:
			return err
		case d.IsDir() && path != dir && isContainerDir(path):
			return fs.SkipDir
		case d.Type()&fs.ModeDevice == 0 || path == "/dev/console" || path == "/dev/ptmx":
			return nil
		case len(found) >= maxDevices:
			return fmt.Errorf("more than %d devices: %w", maxDevices, errdefs.ErrResourceExhausted)
		}
		if dev, ok := device(path, target+strings.TrimPrefix(path, dir), access); ok {
			found = append(found, dev)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("devices of %s: %w", dir, err)
	}
	return found, nil
}

func isContainerDir(path string) bool {
	return slices.Contains([]string{"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/.udev"}, path)
}

func device(path, target, access string) (oci.Device, bool) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return oci.Device{}, false
	}
	kind := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		kind = "b"
	case unix.S_IFCHR:
		kind = "c"
	default:
		return oci.Device{}, false
	}
	mode, uid, gid := os.FileMode(st.Mode&0o777), st.Uid, st.Gid
	return oci.Device{Access: access, HostPath: path, LinuxDevice: specs.LinuxDevice{
		Path: filepath.Clean(target), Type: kind, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		FileMode: &mode, UID: &uid, GID: &gid,
	}}, true
}
