package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// capability is the extended attribute with the capabilities of a file.
const capability = "security.capability"

// keepXattrs deletes the extended attributes that an entry must not have.
func keepXattrs(h *tar.Header) {
	for key := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, xattrRecord); ok && !allowedXattr(attr, h.Typeflag) {
			delete(h.PAXRecords, key)
		}
	}
}

// allowedXattr keeps out above all "trusted.overlay.…" and "user.overlay.…",
// with which a layer could talk to overlay itself, and labels of the host's
// security modules. Only files and directories can have user attributes. What a
// hard link may have depends on the file that it links to, see linkXattrs.
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

// linkXattrs makes the attributes of a hard link those of the file that it links
// to. A link is given the owner of its entry, and with a change of the owner the
// kernel takes the capabilities from a file. So they are set again, unless the
// entry itself has some. It runs with the layer's directory as root directory.
func linkXattrs(h *tar.Header) error {
	target := path.Clean("/" + h.Linkname)
	var st unix.Stat_t
	if unix.Lstat(target, &st) != nil {
		return nil // the library reports it when it links
	}
	link := h.Typeflag
	h.Typeflag = typeOf(st.Mode)
	keepXattrs(h)
	h.Typeflag = link
	if _, ok := h.PAXRecords[xattrRecord+capability]; ok || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	value := make([]byte, 64) // the largest of its versions has 24 bytes
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

// typeOf returns the type of entry that makes a file of this mode.
func typeOf(mode uint32) byte {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return tar.TypeReg
	case unix.S_IFLNK:
		return tar.TypeSymlink
	}
	return tar.TypeChar
}
