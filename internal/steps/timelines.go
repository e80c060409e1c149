package steps

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// The bounds of the memory of timelines. A timeline of a pod with one container has about 40 records.
const (
	maxRecords   = 256     // of one timeline; further steps are counted but not kept
	maxTotal     = 1 << 16 // records of all timelines, about 8 MiB; beyond it the oldest timelines are dropped
	maxTimelines = 8192
	maxRemoved   = 64 // timelines of objects that do not exist any more
	maxErrorText = 200
)

// noRecord is the index of a step that has no record.
const noRecord int32 = -1

// running is the duration of a step that has not ended.
const running = time.Duration(-1)

// record is a step in a timeline.
type record struct {
	start    time.Duration // since the beginning of the timeline
	duration time.Duration // or running
	parent   int32         // index of the step that contains the step, or noRecord
	name     Name
	class    Class
	err      string
	attrs    []Attr
}

// timeline contains the steps of the operations on one object, in the order of their beginning.
type timeline struct {
	object Object
	begun  time.Time
	serial uint64 // in the order of creation

	mu      sync.Mutex // guards the fields below; held for an append or a copy
	records []record
	dropped int
	closed  bool          // Timelines has dropped the timeline, so records are not added any more
	total   *atomic.Int64 // see Timelines
}

// begin adds a step and returns its index.
func (t *timeline) begin(info *Info, parent int32) int32 {
	var attrs []Attr
	if info.n > 0 {
		attrs = slices.Clone(info.Attrs())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.records) >= maxRecords {
		t.dropped++
		return noRecord
	}
	t.records = append(t.records, record{
		start: info.Start.Sub(t.begun), duration: running, parent: parent, name: info.Name, attrs: attrs,
	})
	t.total.Add(1)
	return int32(len(t.records) - 1)
}

// end completes a step.
func (t *timeline) end(index int32, info *Info) {
	if index == noRecord {
		return
	}
	text := ""
	if info.Err != nil {
		text = truncate(info.Err.Error())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &t.records[index]
	r.duration, r.class, r.err = info.Duration, info.Class, text
	if len(r.attrs) < info.n { // see Step.Add
		r.attrs = slices.Clone(info.Attrs())
	}
}

// truncate bounds an error message, which can quote the output of a program.
func truncate(text string) string {
	if len(text) <= maxErrorText {
		return text
	}
	end := maxErrorText
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.Clone(text[:end]) + "…"
}

// Timelines keeps the timelines of pods and containers: of each object that exists, and of the last objects that were
// removed. Its memory is bounded. The timelines are in memory only, so objects that an earlier daemon created have
// timelines only with the operations since the start of the daemon.
type Timelines struct {
	total atomic.Int64 // number of records of all timelines

	// mu guards the fields below. It is held for a lookup or a search. Lock order: mu, timeline.mu.
	mu      sync.Mutex
	byID    map[string]*timeline
	removed []string // ids of removed objects, the first removed first
	serial  uint64
}

// NewTimelines returns an empty store.
func NewTimelines() *Timelines { return &Timelines{byID: make(map[string]*timeline)} }

// open returns the timeline of an object, and creates the timeline if the object has an id.
func (s *Timelines) open(o Object) *timeline {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := o.ID()
	if id == "" {
		return s.latestPod(o.Name)
	}
	if t := s.byID[id]; t != nil {
		return t
	}
	for len(s.byID) >= maxTimelines || s.total.Load() >= maxTotal && len(s.byID) > 0 {
		s.dropOldest()
	}
	s.serial++
	t := &timeline{object: o, begun: time.Now(), serial: s.serial, total: &s.total}
	s.byID[id] = t
	return t
}

// latestPod returns the newest timeline of a pod with that name that was not removed, or nil. The caller holds mu.
func (s *Timelines) latestPod(name string) *timeline {
	var latest *timeline
	for id, t := range s.byID {
		if name == "" || t.object.Container != "" || t.object.Name != name || slices.Contains(s.removed, id) {
			continue
		}
		if latest == nil || t.serial > latest.serial {
			latest = t
		}
	}
	return latest
}

// remove marks the object with that id as removed.
func (s *Timelines) remove(id string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[id] == nil || slices.Contains(s.removed, id) {
		return
	}
	if s.removed = append(s.removed, id); len(s.removed) > maxRemoved {
		s.drop(s.removed[0])
	}
}

// dropOldest drops the timeline of the object that was removed first, or else the oldest timeline. The caller
// holds mu.
func (s *Timelines) dropOldest() {
	if len(s.removed) > 0 {
		s.drop(s.removed[0])
		return
	}
	oldest, serial := "", s.serial+1
	for id, t := range s.byID {
		if t.serial < serial {
			oldest, serial = id, t.serial
		}
	}
	s.drop(oldest)
}

// drop drops a timeline. Steps of the timeline that end later are not kept. The caller holds mu.
func (s *Timelines) drop(id string) {
	s.removed = slices.DeleteFunc(s.removed, func(r string) bool { return r == id })
	t := s.byID[id]
	if t == nil {
		return
	}
	delete(s.byID, id)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		s.total.Add(-int64(len(t.records)))
	}
}
