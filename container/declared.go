package container

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/rootpath"
	"github.com/criserver/criserver/oci"
)

// maxDeclared bounds the volumes that an image may declare, each of which can
// cost a mount.
const maxDeclared = 512

// kernelDirs hold what the kernel shows of itself. No volume of an image covers
// it up: paths in it are masked.
var kernelDirs = []string{"/proc", "/sys", "/dev"}

// checkDeclared bounds what comes from the image's config.
func checkDeclared(volumes map[string]struct{}) error {
	if n := len(volumes); n > maxDeclared {
		return invalid("the image declares %d volumes, more than %d", n, maxDeclared)
	}
	for v := range volumes {
		if rootpath.TooLong(v) {
			return invalid("volume %.64q… of the image %s", v, rootpath.LengthRule)
		}
	}
	return nil
}

// writableVolumes makes the volumes that the image declares writable in a
// container whose root file system is not. Their data are part of the writable
// layer anyway, with the content and the owners that the image has there; so
// each is bound onto itself, and is left out when the root turns read-only.
// Where the request mounts something, the volume is that.
func writableVolumes(rootfs string, volumes map[string]struct{}, mounts []oci.Mount) ([]oci.Mount, error) {
	rootfs, err := filepath.EvalSymlinks(rootfs)
	if err != nil {
		return nil, err
	}
	var writable []oci.Mount
	for _, v := range slices.Sorted(maps.Keys(volumes)) {
		at := filepath.Clean(v)
		if !filepath.IsAbs(v) || at == "/" || mounted(at, mounts) || slices.ContainsFunc(kernelDirs, func(d string) bool { return below(at, d) }) {
			continue
		}
		source, inside, err := realPath(rootfs, at)
		if err != nil {
			return nil, fmt.Errorf("volume %q of the image: %w", v, err)
		}
		// A link can lead to where a volume would not be let.
		if inside == "/" || mounted(inside, mounts) || slices.ContainsFunc(kernelDirs, func(d string) bool { return below(inside, d) }) {
			continue
		}
		writable = append(writable, oci.Mount{Source: source, Destination: inside})
	}
	slices.SortStableFunc(writable, func(a, b oci.Mount) int { return len(a.Destination) - len(b.Destination) })
	return writable, nil
}

// realPath resolves the links of a directory of the root file system, on the
// host and as it is seen inside. Nothing runs in there yet that could change it.
func realPath(rootfs, path string) (source, inside string, err error) {
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

// below says whether path is dir or lies in it.
func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
