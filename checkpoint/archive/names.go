package archive

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// topFiles are the names that an archive can have outside of ImageDir.
var topFiles = []string{
	InfoFile, SpecFile, ConfigFile, MountsFile, DeletedFile, RootFSDiffFile, ShmFile, DumpLogFile, StatsFile, ContainerLogFile, FilesFile, MACFile,
}

// ImagePath returns the name of the entry of a CRIU image.
func ImagePath(name string) string { return path.Join(ImageDir, name) }

// checkName returns an error for a name that is neither a constant of this package nor the ImagePath of a file name.
// No accepted name leads out of the directory into which a program unpacks the archive.
func checkName(name string) error {
	if slices.Contains(topFiles, name) {
		return nil
	}
	image, ok := strings.CutPrefix(name, ImageDir+"/")
	if !ok || !validImageName(image) {
		return fmt.Errorf("a checkpoint archive cannot have the entry %.300q: %w", name, errdefs.ErrInvalidArgument)
	}
	return nil
}

// validImageName reports whether a name has only letters, digits, ".", "-" and "_". All CRIU images have such names.
func validImageName(name string) bool {
	if name == "" || len(name) > maxName || name[0] == '.' {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
