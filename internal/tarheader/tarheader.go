// Package tarheader makes the headers of tar entries from the metadata of files. In contrast to tar.FileInfoHeader, a
// header has no names of users and groups, and only the time of modification, so the header of an unchanged file is
// always the same.
package tarheader

import (
	"archive/tar"
	"time"

	"golang.org/x/sys/unix"
)

// FromStat returns the header of a file with the metadata st, or nil if a tar cannot contain the kind of file, for
// example a socket. The caller sets the target of a symbolic link and the extended attributes.
func FromStat(name string, st *unix.Stat_t) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	default:
		return nil
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	return h
}
