package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// maxName is the kernel's maximum length of a path in bytes.
	maxName = 4096
	// maxID is the highest user or group id. The id above it means "do not change the owner".
	maxID = 1<<32 - 2
	// xattrRecord is the prefix of the PAX records with extended attributes.
	xattrRecord = "SCHILY.xattr."
	// capability is the extended attribute with the capabilities of a file.
	capability = "security.capability"
)

// checkNames refuses names that lead out of the layer. Absolute names are taken as relative to
// the root of the layer, as all tools do.
func checkNames(h *tar.Header) error {
	names := []string{h.Name}
	if h.Typeflag == tar.TypeLink {
		names = append(names, h.Linkname)
	}
	for _, name := range names {
		if len(name) > maxName {
			return fmt.Errorf("layer has the name %.64q… of %d bytes, at most %d are allowed: %w", name, len(name), maxName, errdefs.ErrInvalidArgument)
		}
		relative := strings.TrimLeft(name, "/")
		if relative != "" && !filepath.IsLocal(relative) {
			return fmt.Errorf("layer has the name %q, which leads out of the layer: %w", name, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// normalize changes a header so that the archive library supports it and the host allows it. normalize
// returns an error for unknown types of entries and for owners that are out of range.
func normalize(h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeGNUSparse, tar.TypeCont:
		h.Typeflag = tar.TypeReg // the tar reader fills the holes
	case tar.TypeReg, '\x00', tar.TypeDir, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	default:
		return fmt.Errorf("layer entry %q has unknown type %q: %w", h.Name, h.Typeflag, errdefs.ErrInvalidArgument)
	}
	if h.Uid < 0 || h.Uid > maxID || h.Gid < 0 || h.Gid > maxID {
		return fmt.Errorf("layer entry %q has invalid owner %d:%d: %w", h.Name, h.Uid, h.Gid, errdefs.ErrInvalidArgument)
	}
	filterXattrs(h)
	if h.Typeflag == tar.TypeDir {
		cloneStrings(h)
	}
	return nil
}

// cloneStrings copies the strings of a directory's header, which stays in memory until the layer
// is unpacked. The strings of a PAX header are parts of one string of up to 1 MiB, which would
// stay in memory with them. cloneStrings drops the records that are not extended attributes.
func cloneStrings(h *tar.Header) {
	h.Name, h.Linkname, h.Uname, h.Gname = strings.Clone(h.Name), "", "", ""
	records := make(map[string]string)
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, xattrRecord) {
			records[strings.Clone(key)] = strings.Clone(value)
		}
	}
	h.PAXRecords = records
}

// filterXattrs deletes the extended attributes that an entry may not have.
func filterXattrs(h *tar.Header) {
	for key := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, xattrRecord); ok && !allowedXattr(attr, h.Typeflag) {
			delete(h.PAXRecords, key)
		}
	}
}

// allowedXattr reports whether an entry of a type may have an extended attribute. The most
// important attributes that are refused are "trusted.overlay.…" and "user.overlay.…", with which
// a layer could control overlay, and the labels of the host's security modules. Only files and
// directories can have user attributes. The attributes of a hard link depend on the file that it
// links to, see linkXattrs.
func allowedXattr(name string, typ byte) bool {
	if typ == tar.TypeLink || typ == 0 {
		typ = tar.TypeReg
	}
	switch {
	case name == capability, name == "security.ima":
		return typ == tar.TypeReg
	case name == "system.posix_acl_access":
		return typ != tar.TypeSymlink
	case name == "system.posix_acl_default":
		return typ == tar.TypeDir
	case strings.HasPrefix(name, "user.overlay."):
		return false
	}
	return strings.HasPrefix(name, "user.") && (typ == tar.TypeReg || typ == tar.TypeDir)
}

// linkXattrs filters the attributes of a hard link by the type of the file that it links to. The
// archive library gives a link the owner of its entry, and the kernel removes the capabilities of
// a file when its owner changes. So linkXattrs adds the capabilities of the file to the entry,
// unless the entry has its own. The caller's root directory is the directory of the layer.
func linkXattrs(h *tar.Header) error {
	target := path.Clean("/" + h.Linkname)
	var st unix.Stat_t
	if unix.Lstat(target, &st) != nil {
		return nil // the archive library reports the error when it creates the link
	}
	link := h.Typeflag
	h.Typeflag = typeOf(st.Mode)
	filterXattrs(h)
	h.Typeflag = link
	if _, ok := h.PAXRecords[xattrRecord+capability]; ok || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	value := make([]byte, 64) // the longest version of the attribute has 24 bytes
	n, err := unix.Lgetxattr(target, capability, value)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return nil
	case err != nil:
		return fmt.Errorf("read %s of %q: %w", capability, target, err)
	}
	if h.PAXRecords == nil {
		h.PAXRecords = make(map[string]string)
	}
	h.PAXRecords[xattrRecord+capability] = string(value[:n])
	return nil
}

// typeOf returns the type of the tar entry for a file with a mode.
func typeOf(mode uint32) byte {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return tar.TypeReg
	case unix.S_IFLNK:
		return tar.TypeSymlink
	}
	return tar.TypeChar
}
