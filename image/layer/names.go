package layer

import (
	"archive/tar"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

const (
	// maxName is the kernel's bound of a path.
	maxName = 4096
	// maxImplied bounds the bytes of the names in Layer.Implied, which the record
	// of a layer has in full.
	maxImplied = 16 << 20
	// bytesPerEntry bounds the bytes of names for each entry that a layer may
	// have. Names stay in memory while the layer is unpacked.
	bytesPerEntry = 256
	// leastNames is the bound where the limit of entries is low.
	leastNames = 1 << 20
)

// countNames bounds what the entries of a layer keep in memory: the names, and of
// directories, whose times are set at the end, the extended attributes too.
func (p *placer) countNames(h *tar.Header) error {
	n := len(h.Name) + len(h.Linkname)
	if h.Typeflag == tar.TypeDir {
		for key, value := range h.PAXRecords {
			n += len(key) + len(value)
		}
	}
	p.names += int64(n)
	if bound := max(int64(p.limits.Entries)*bytesPerEntry, leastNames); p.names > bound {
		return fmt.Errorf("layer's names are more than %d bytes: %w", bound, errdefs.ErrResourceExhausted)
	}
	return nil
}

// release makes the strings of a header stand alone. Those of a PAX header are
// parts of one string of up to 1 MiB, which would stay in memory with them.
func release(h *tar.Header) {
	h.Name, h.Linkname, h.Uname, h.Gname = strings.Clone(h.Name), "", "", ""
	records := make(map[string]string)
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, xattrRecord) {
			records[strings.Clone(key)] = strings.Clone(value)
		}
	}
	h.PAXRecords = records
}

// checkNames refuses names that point out of the layer. Absolute ones are taken
// as relative, as all tools do.
func checkNames(h *tar.Header) error {
	names := []string{h.Name}
	if h.Typeflag == tar.TypeLink {
		names = append(names, h.Linkname)
	}
	for _, name := range names {
		if len(name) > maxName {
			return fmt.Errorf("layer has a name of %d bytes: %w", len(name), errdefs.ErrInvalidArgument)
		}
		relative := strings.TrimLeft(name, "/")
		if relative != "" && !filepath.IsLocal(relative) {
			return fmt.Errorf("layer has the name %q: %w", name, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}
