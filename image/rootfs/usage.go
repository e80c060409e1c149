package rootfs

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
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
