package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Usage is what a writable layer takes on disk.
type Usage struct {
	Bytes  uint64
	Inodes uint64
	At     time.Time // when it was measured; zero for "not yet"
}

type usage struct {
	last   Usage
	wanted bool // asked for since it was last measured
}

// walkShare bounds what measuring costs: after each walk it rests for so many
// times as long as the walk took.
const walkShare = 20

// maxDepth bounds the directories that a walk has open at a time. What a
// container nests deeper is not counted.
const maxDepth = 128

// Usage returns the last measurement of a container's writable layer; it does
// not make one. What is asked for is measured anew by Run, what nobody asks for
// costs nothing. ErrNotFound when there is no such layer.
func (s *Store) Usage(containerID string) (Usage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.all[containerID]
	if !ok {
		return Usage{}, fmt.Errorf("root file system of container %q: %w", containerID, errdefs.ErrNotFound)
	}
	e.usage.wanted = true
	return e.usage.last, nil
}

// Total returns the sum over all containers, and the oldest measurement's time.
func (s *Store) Total() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := Usage{At: time.Now()}
	for _, e := range s.all {
		e.usage.wanted = true
		total.Bytes += e.usage.last.Bytes
		total.Inodes += e.usage.last.Inodes
		if at := e.usage.last.At; !at.IsZero() && at.Before(total.At) {
			total.At = at
		}
	}
	return total
}

// Run measures, until ctx ends.
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
	for _, id := range s.wanted() {
		began := time.Now()
		bytes, inodes := measure(ctx, filepath.Join(s.cfg.Dir, id, upperDir))
		if ctx.Err() != nil {
			return
		}
		s.note(id, Usage{Bytes: bytes, Inodes: inodes, At: began})
		select {
		case <-time.After(walkShare * time.Since(began)):
		case <-ctx.Done():
			return
		}
	}
}

func (s *Store) wanted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var wanted []string
	for id, e := range s.all {
		if e.usage.wanted {
			e.usage.wanted = false
			wanted = append(wanted, id)
		}
	}
	return wanted
}

func (s *Store) note(id string, u Usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.all[id]; ok {
		e.usage.last = u
	}
}

// measure walks a tree that a container is changing at the same time. It works
// through descriptors, so that a directory which becomes a link leads nowhere,
// and counts what it can see.
func measure(ctx context.Context, dir string) (bytes, inodes uint64) {
	w := walk{linked: make(map[uint64]struct{})}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0
	}
	w.dir(ctx, os.NewFile(uintptr(fd), dir), 0)
	return w.bytes, w.inodes
}

type walk struct {
	bytes, inodes uint64
	linked        map[uint64]struct{} // inodes of several links, counted already
}

// dir counts and closes an open directory and what is below.
func (w *walk) dir(ctx context.Context, d *os.File, depth int) {
	defer d.Close()
	var st unix.Stat_t
	if unix.Fstat(int(d.Fd()), &st) == nil {
		w.add(&st)
	}
	for depth < maxDepth && ctx.Err() == nil {
		names, err := d.Readdirnames(512)
		for _, name := range names {
			w.entry(ctx, d, name, depth)
		}
		if errors.Is(err, io.EOF) || err != nil {
			return
		}
	}
}

func (w *walk) entry(ctx context.Context, d *os.File, name string, depth int) {
	var st unix.Stat_t
	if unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		w.add(&st)
		return
	}
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		w.dir(ctx, os.NewFile(uintptr(fd), name), depth+1)
	}
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
