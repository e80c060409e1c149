package rootfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Usage is the disk usage of a writable layer.
type Usage struct {
	Bytes  uint64
	Inodes uint64
	At     time.Time // the time of the measurement; zero before the first one
}

type usage struct {
	last      Usage
	requested bool // since the last measurement
}

// pauseFactor limits the cost of measurements. After each measurement, measureAll pauses for this
// multiple of the time that the measurement took.
const pauseFactor = 20

// Usage returns the last measurement of a container's writable layer and requests another one,
// which Run makes later. Layers whose usage is not requested are not measured. Usage returns
// ErrNotFound if there is no such layer.
func (s *Store) Usage(containerID string) (Usage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.all[containerID]
	if !ok {
		return Usage{}, fmt.Errorf("root file system of container %q: %w", containerID, errdefs.ErrNotFound)
	}
	e.usage.requested = true
	return e.usage.last, nil
}

// Total returns the sum for all containers, and the time of the oldest measurement.
func (s *Store) Total() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := Usage{At: time.Now()}
	for _, e := range s.all {
		e.usage.requested = true
		total.Bytes += e.usage.last.Bytes
		total.Inodes += e.usage.last.Inodes
		if measured := e.usage.last.At; !measured.IsZero() && measured.Before(total.At) {
			total.At = measured
		}
	}
	return total
}

// Run measures the requested writable layers at intervals, until ctx ends.
func (s *Store) Run(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		s.measureAll(ctx)
		pause.Reset(s.cfg.Interval)
	}
}

func (s *Store) measureAll(ctx context.Context) {
	for _, id := range s.takeRequests() {
		start := time.Now()
		bytes, inodes := measure(ctx, filepath.Join(s.cfg.Dir, id, upperDir))
		if ctx.Err() != nil {
			return
		}
		s.setUsage(id, Usage{Bytes: bytes, Inodes: inodes, At: start})
		select {
		case <-time.After(pauseFactor * time.Since(start)):
		case <-ctx.Done():
			return
		}
	}
}

// takeRequests returns the containers whose usage was requested since the last call.
func (s *Store) takeRequests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var requested []string
	for id, e := range s.all {
		if e.usage.requested {
			e.usage.requested = false
			requested = append(requested, id)
		}
	}
	return requested
}

func (s *Store) setUsage(id string, u Usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.all[id]; ok {
		e.usage.last = u
	}
}

// measure returns the disk usage of a tree that a container may change at the same time. It walks
// the tree with descriptors, so that a directory that becomes a symbolic link does not lead out of
// the tree, and skips files that disappear. It has at most two directories open, for a tree of any
// depth, and returns to parents with "..".
//
// fs.DiskUsage of containerd's continuity is not used, because it walks by path names. See
// docs/dependencies.md.
func measure(ctx context.Context, dir string) (bytes, inodes uint64) {
	fd, err := unix.Open(dir, openDir, 0)
	if err != nil {
		return 0, 0
	}
	w := treeWalk{counted: make(map[uint64]struct{}), dir: os.NewFile(uintptr(fd), dir)}
	defer func() { _ = w.dir.Close() }()
	w.enter()
	for len(w.levels) > 0 && ctx.Err() == nil && w.step() {
	}
	return w.bytes, w.inodes
}

const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// treeWalk is a walk of a tree, depth first.
type treeWalk struct {
	bytes, inodes uint64
	counted       map[uint64]struct{} // the counted inodes with several links

	dir    *os.File // the directory of the last level
	levels []level  // from the top to dir
}

// level is a directory on the path to the current directory.
type level struct {
	dev, ino uint64
	pending  []string // subdirectories that have not been counted
}

// step goes to the next directory. It returns false if the walk must end, because a container has
// moved a directory on the path and ".." leads to another directory.
func (w *treeWalk) step() bool {
	last := &w.levels[len(w.levels)-1]
	if n := len(last.pending); n > 0 {
		name := last.pending[n-1]
		last.pending = last.pending[:n-1]
		if w.open(name) {
			w.enter()
		}
		return true
	}
	w.levels = w.levels[:len(w.levels)-1]
	if len(w.levels) == 0 {
		return true
	}
	parent := w.levels[len(w.levels)-1]
	if !w.open("..") {
		return false
	}
	var st unix.Stat_t
	err := unix.Fstat(int(w.dir.Fd()), &st)
	return err == nil && uint64(st.Dev) == parent.dev && st.Ino == parent.ino //nolint:unconvert // the width depends on the architecture
}

// open replaces the current directory with one of its entries.
func (w *treeWalk) open(name string) bool {
	fd, err := unix.Openat(int(w.dir.Fd()), name, openDir, 0)
	if err != nil {
		return false
	}
	_ = w.dir.Close()
	w.dir = os.NewFile(uintptr(fd), name)
	return true
}

// enter counts the current directory and its files, and adds a level.
func (w *treeWalk) enter() {
	var st unix.Stat_t
	_ = unix.Fstat(int(w.dir.Fd()), &st) // does not fail for an open directory
	w.add(&st)
	current := level{dev: uint64(st.Dev), ino: st.Ino} //nolint:unconvert // as above
	for {
		names, err := w.dir.Readdirnames(512)
		for _, name := range names {
			if w.entry(name) {
				current.pending = append(current.pending, name)
			}
		}
		if err != nil {
			break
		}
	}
	w.levels = append(w.levels, current)
}

// entry counts an entry unless it is a directory, and reports whether it is a directory.
func (w *treeWalk) entry(name string) (isDir bool) {
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

// add counts an inode once.
func (w *treeWalk) add(st *unix.Stat_t) {
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if _, ok := w.counted[st.Ino]; ok {
			return
		}
		w.counted[st.Ino] = struct{}{}
	}
	w.inodes++
	w.bytes += uint64(st.Blocks) * 512
}
