package rootfs

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// measure walks a tree that a container is changing at the same time. It works
// through descriptors, so that a directory which becomes a link leads nowhere,
// and counts what it can see. It has two directories open at most, however deep
// a container nests them, and goes back up by "..".
func measure(ctx context.Context, dir string) (bytes, inodes uint64) {
	fd, err := unix.Open(dir, openDir, 0)
	if err != nil {
		return 0, 0
	}
	w := walk{linked: make(map[uint64]struct{}), dir: os.NewFile(uintptr(fd), dir)}
	defer func() { _ = w.dir.Close() }()
	w.enter()
	for len(w.above) > 0 && ctx.Err() == nil && w.step() {
	}
	return w.bytes, w.inodes
}

const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// walk is a walk through a tree, depth first.
type walk struct {
	bytes, inodes uint64
	linked        map[uint64]struct{} // inodes of several links, counted already

	dir   *os.File // the directory of the last level
	above []level  // the levels from the top to dir
}

// level is a directory on the way down.
type level struct {
	dev, ino uint64
	left     []string // directories in it that are not yet counted
}

// step goes on to the next directory. It returns false when the walk must end:
// a container has moved a directory on the way, and ".." leads elsewhere.
func (w *walk) step() bool {
	last := &w.above[len(w.above)-1]
	if n := len(last.left); n > 0 {
		name := last.left[n-1]
		last.left = last.left[:n-1]
		if w.open(name) {
			w.enter()
		}
		return true
	}
	w.above = w.above[:len(w.above)-1]
	if len(w.above) == 0 {
		return true
	}
	parent := w.above[len(w.above)-1]
	if !w.open("..") {
		return false
	}
	var st unix.Stat_t
	err := unix.Fstat(int(w.dir.Fd()), &st)
	return err == nil && uint64(st.Dev) == parent.dev && st.Ino == parent.ino //nolint:unconvert // the width depends on the architecture
}

// open replaces the directory with one that is named from it.
func (w *walk) open(name string) bool {
	fd, err := unix.Openat(int(w.dir.Fd()), name, openDir, 0)
	if err != nil {
		return false
	}
	_ = w.dir.Close()
	w.dir = os.NewFile(uintptr(fd), name)
	return true
}

// enter counts the directory and what is in it, and adds it to the way.
func (w *walk) enter() {
	var st unix.Stat_t
	_ = unix.Fstat(int(w.dir.Fd()), &st) // of an open directory
	w.add(&st)
	here := level{dev: uint64(st.Dev), ino: st.Ino} //nolint:unconvert // as above
	for {
		names, err := w.dir.Readdirnames(512)
		for _, name := range names {
			if w.entry(name) {
				here.left = append(here.left, name)
			}
		}
		if err != nil {
			break
		}
	}
	w.above = append(w.above, here)
}

// entry counts an entry that is no directory, and reports whether it is one.
func (w *walk) entry(name string) (isDir bool) {
	var st unix.Stat_t
	if unix.Fstatat(int(w.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return false
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return true
	}
	w.add(&st)
	return false
}

func (w *walk) add(st *unix.Stat_t) {
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if _, ok := w.linked[st.Ino]; ok {
			return
		}
		w.linked[st.Ino] = struct{}{}
	}
	w.inodes++
	w.bytes += uint64(st.Blocks) * 512
}
