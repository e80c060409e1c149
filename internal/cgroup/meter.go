package cgroup

import (
	"sync"
	"time"
)

// Fresh is for how long figures are handed out again: many callers ask for them
// at nearly the same time.
const Fresh = time.Second

// Usage is Stats with what follows from the reading before.
type Usage struct {
	Stats
	// NanoCores are the nanoseconds of CPU a second since the reading before; nil
	// when there was none.
	NanoCores *uint64
}

// Next returns the usage that follows u.
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

// Meter reads one cgroup for many callers and remembers what it last read. No
// goroutine samples: the rate of CPU is over the time between two questions.
// The zero value is ready.
type Meter struct {
	mu   sync.Mutex // guards last, and is held while reading, so that who comes meanwhile shares it
	last Usage
}

// Read answers from what was read less than Fresh ago, or calls read.
func (m *Meter) Read(read func() (Stats, error)) (Usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.last.Time) < Fresh {
		return m.last, nil
	}
	now, err := read()
	if err != nil {
		return Usage{}, err
	}
	m.last = m.last.Next(now)
	return m.last, nil
}
