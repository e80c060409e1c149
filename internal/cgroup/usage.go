package cgroup

import (
	"sync"
	"time"
)

// CacheTime is how long a StatsCache returns the same stats. Many callers ask for them at
// nearly the same time.
const CacheTime = time.Second

// Usage contains Stats, and the CPU rate since the previous Stats.
type Usage struct {
	Stats
	// NanoCores is the CPU time in nanoseconds per second since the previous Stats. It is nil
	// if there are no previous Stats.
	NanoCores *uint64
}

// Next returns the usage for now, with u as the previous usage.
func (u Usage) Next(now Stats) Usage {
	next := Usage{Stats: now}
	took := now.Time.Sub(u.Time)
	if u.Time.IsZero() || took <= 0 || now.CPUUsage < u.CPUUsage {
		return next
	}
	rate := uint64(float64(now.CPUUsage-u.CPUUsage) / took.Seconds())
	next.NanoCores = &rate
	return next
}

// StatsCache keeps the last stats of one cgroup for many callers. No goroutine samples the
// cgroup: the CPU rate is the average between two reads. The zero value is ready to use.
type StatsCache struct {
	mu   sync.Mutex // guards last; held while stats are read, so that concurrent callers share one read
	last Usage
}

// Read returns the last usage if it is younger than CacheTime. Otherwise it calls read.
func (m *StatsCache) Read(read func() (Stats, error)) (Usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.last.Time) < CacheTime {
		return m.last, nil
	}
	now, err := read()
	if err != nil {
		return Usage{}, err
	}
	m.last = m.last.Next(now)
	return m.last, nil
}
