package crilog

import "golang.org/x/sys/unix"

// rotatedSuffix is appended to the name of a log that has reached its maximum size. The kubelet
// takes LOG.* for rotated logs of the container, and deletes them with the container.
const rotatedSuffix = ".1"

// rotateIfFull rotates the log if n more bytes exceed its maximum size.
func (l *File) rotateIfFull(n int) {
	if l.rotateAt == 0 || l.size == 0 || l.size+int64(n) <= l.rotateAt {
		return
	}
	if !l.rotate() {
		// The log grows beyond its maximum size: its content is worth more than the limit. The
		// next attempt must not cost system calls for each write.
		l.rotateAt = l.size + max(1, l.maxSize/8)
	}
}

// rotate renames the log and opens a new one, and reports whether it did. It replaces the log
// that was rotated before, whose bytes count as lost.
func (l *File) rotate() bool {
	if l.partial || l.unreported > 0 {
		l.writeLossNotice() // while the file is still the one that lacks the bytes
	}
	old := l.path + rotatedSuffix
	renamed := l.isCurrent()
	if renamed {
		var st unix.Stat_t
		exists := unix.Lstat(old, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
		if unix.Rename(l.path, old) != nil {
			return false
		}
		if exists {
			l.deleted += st.Size
			l.lost += st.Size
		}
	}
	fd, size, err := openLogFile(l.path)
	if err != nil {
		if renamed {
			_ = unix.Rename(old, l.path)
		}
		return false
	}
	l.replace(fd, size)
	return true
}

// isCurrent reports whether the open file is the file at the path of the log. The kubelet renames
// the log some time before it has the log reopened; the file must not be renamed then.
func (l *File) isCurrent() bool {
	var open, named unix.Stat_t
	return unix.Fstat(l.fd, &open) == nil && unix.Lstat(l.path, &named) == nil && open.Ino == named.Ino && open.Dev == named.Dev
}
