package sandbox

import (
	"context"
	"io/fs"
	"sync"
	"time"

	"github.com/criserver/criserver/internal/cgroup"
)

// fakeContainers records its calls and can fail or block.
type fakeContainers struct {
	mu      sync.Mutex
	stops   int
	removed []string
	stopErr error
	hold    chan struct{} // if not nil, StopPod waits until it is closed
}

func (f *fakeContainers) StopPod(ctx context.Context, _ string) error {
	f.mu.Lock()
	f.stops++
	hold, err := f.hold, f.stopErr
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (f *fakeContainers) RemovePod(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removed = append(f.removed, id)
	return nil
}

// fakeCgroups counts the holds of each cgroup.
type fakeCgroups struct {
	mu    sync.Mutex
	held  map[string]int
	pids  map[string]int
	fails error
	read  int                     // number of reads of stats
	drop  func(path string) error // called by Remove and by the last Release, which ignores the error; or nil
}

func (f *fakeCgroups) Make(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails != nil {
		return f.fails
	}
	if f.held == nil {
		f.held, f.pids = map[string]int{}, map[string]int{}
	}
	f.held[path]++
	return nil
}

func (f *fakeCgroups) Release(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held[path] > 0 {
		f.held[path]--
	}
	if f.held[path] == 0 {
		delete(f.held, path)
		if f.drop != nil {
			_ = f.drop(path)
		}
	}
}

func (f *fakeCgroups) Remove(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.drop != nil {
		return f.drop(path)
	}
	return nil
}

func (f *fakeCgroups) Add(path string, pid int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pids[path] = pid
	return nil
}

func (f *fakeCgroups) Stats(path string) (cgroup.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held[path] == 0 {
		return cgroup.Stats{}, fs.ErrNotExist
	}
	f.read++
	return cgroup.Stats{Time: time.Now(), CPUUsage: uint64(f.read) * 1000}, nil
}

func (f *fakeCgroups) Pids(path string) ([]int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return make([]int, len(f.pids)), nil
}
