package cgroup

import (
	"errors"
	"io/fs"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestStats parses files from real kernels, with different values in all fields.
func TestStats(t *testing.T) {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	mem := Memory{
		Usage: 32 << 20, WorkingSet: 26 << 20, RSS: 20 << 20, Limit: 128 << 20, Swap: 1 << 20, PageFaults: 48211, MajorFault: 37,
	}
	v1, v2 := mem, mem
	v1.SwapLimit = 128 << 20
	for name, tc := range map[string]struct {
		tree *Tree
		want Stats
	}{
		"v2": {newTree(true, map[string]string{"": dir + "/v2"}), Stats{
			CPUUsage: 2731455000, Memory: v2, Pids: 12,
			CPUPressure: &Pressure{
				Some: Stall{5512340 * time.Microsecond, 1.53, 0.87, 0.22},
				Full: Stall{1234567 * time.Microsecond, 0.5, 0.1, 0.02},
			},
			MemoryPressure: &Pressure{},
		}},
		"v1": {newTree(false, map[string]string{"cpuacct": dir + "/v1/cpuacct", "memory": dir + "/v1/memory", "pids": dir + "/v1/pids"}), Stats{
			CPUUsage: 2731455123, Memory: v1, Pids: 12,
		}},
	} {
		got, err := tc.tree.Stats("/pod")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Time.IsZero() {
			t.Errorf("%s: Time is zero", name)
		}
		if got.Detail == nil {
			t.Errorf("%s: Detail is nil", name)
		}
		got.Time, got.Detail = time.Time{}, nil
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, tc.want)
		}
		if _, err := tc.tree.Stats("/missing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: stats of a missing cgroup: %v", name, err)
		}
	}
}

func TestStatsCacheSharesReads(t *testing.T) {
	var m StatsCache
	var reads atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			u, err := m.Read(func() (Stats, error) { reads.Add(1); return Stats{Time: time.Now().Add(time.Hour)}, nil })
			if err != nil || u.NanoCores != nil {
				t.Errorf("the first usage has a rate: %v, %v", u.NanoCores, err)
			}
		})
	}
	wg.Wait()
	if n := reads.Load(); n != 1 {
		t.Errorf("%d reads for concurrent callers, want 1", n)
	}
}

func TestStatsCacheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m StatsCache
		cpu := uint64(0)
		read := func() (Stats, error) {
			cpu += 500_000_000
			return Stats{Time: time.Now(), CPUUsage: cpu}, nil
		}
		if u, err := m.Read(read); err != nil || u.NanoCores != nil {
			t.Errorf("the first usage has a rate: %v, %v", u.NanoCores, err)
		}
		time.Sleep(2 * time.Second)
		u, err := m.Read(read)
		if err != nil || u.NanoCores == nil || *u.NanoCores != 250_000_000 {
			t.Errorf("rate for 0.5 s of CPU time in 2 s: %v, %v", u.NanoCores, err)
		}
		time.Sleep(2 * time.Second)
		if _, err := m.Read(func() (Stats, error) { return Stats{}, fs.ErrNotExist }); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v, want the error of read", err)
		}
	})
}

func TestNextWithoutRate(t *testing.T) {
	statsAt := func(s int, cpu uint64) Stats { return Stats{Time: time.Unix(int64(s), 0), CPUUsage: cpu} }
	for name, next := range map[string]Usage{
		"first":     Usage{}.Next(statsAt(1, 5)),
		"backwards": Usage{Stats: statsAt(1, 5)}.Next(statsAt(2, 4)),
		"same time": Usage{Stats: statsAt(1, 5)}.Next(statsAt(1, 6)),
	} {
		if next.NanoCores != nil {
			t.Errorf("%s: rate %d, want none", name, *next.NanoCores)
		}
	}
}
