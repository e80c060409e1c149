package steps

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Timeline is a copy of the timeline of a pod or container.
type Timeline struct {
	Object
	Begin   time.Time // of the first step
	Removed bool      // the object does not exist any more
	Steps   []Entry   // in the order of their beginning
	Dropped int       // number of steps that were not kept
	// Containers contains the timelines of the containers of a pod, in the order of creation.
	Containers []Timeline
}

// Entry is a step in a Timeline.
type Entry struct {
	Name     string
	Parent   int           // index of the step that contains the step, or -1
	Start    time.Duration // since Timeline.Begin
	Duration time.Duration // until now if the step is running
	Running  bool
	Waits    bool // the step does nothing but wait
	Class    Class
	Error    string
	Attrs    []Attr
}

// Get returns the timeline of a pod with the timelines of its containers, or of a container. ref is an id,
// a unique prefix of an id, the name of a pod as "namespace/name", or of a container as
// "namespace/pod/container". If several objects have the same name, Get returns the newest one that was not
// removed, or else the newest one.
//
// Errors: ErrNotFound, and ErrInvalidArgument if ref is the prefix of several ids.
func (s *Timelines) Get(ref string) (Timeline, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(ref)
	if err != nil {
		return Timeline{}, err
	}
	out := s.copy(t)
	if t.object.Container != "" {
		return out, nil
	}
	for _, c := range s.containers(t.object.Pod) {
		out.Containers = append(out.Containers, s.copy(c))
	}
	return out, nil
}

// containers returns the timelines of the containers of a pod in the order of creation. The caller holds mu.
func (s *Timelines) containers(pod string) []*timeline {
	var all []*timeline
	for _, t := range s.byID {
		if t.object.Container != "" && t.object.Pod == pod {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b *timeline) int { return int(a.serial) - int(b.serial) })
	return all
}

// find returns the timeline that ref stands for. The caller holds mu.
func (s *Timelines) find(ref string) (*timeline, error) {
	if t := s.byID[ref]; t != nil {
		return t, nil
	}
	if ref == "" {
		return nil, fmt.Errorf("empty id: %w", errdefs.ErrInvalidArgument)
	}
	var found, named *timeline
	matches := 0
	for id, t := range s.byID {
		if strings.HasPrefix(id, ref) {
			found = t
			matches++
		}
		if s.fullName(t) == ref && (named == nil || s.newer(t, named)) {
			named = t
		}
	}
	switch {
	case named != nil:
		return named, nil
	case matches == 1:
		return found, nil
	case matches > 1:
		return nil, fmt.Errorf("%q is the beginning of %d ids: %w", ref, matches, errdefs.ErrInvalidArgument)
	}
	return nil, fmt.Errorf("no timeline of a pod or container %q; the daemon keeps timelines since its start: %w", ref, errdefs.ErrNotFound)
}

// fullName returns the name of an object with the names above it. The caller holds mu.
func (s *Timelines) fullName(t *timeline) string {
	if t.object.Container == "" {
		return t.object.Name
	}
	if pod := s.byID[t.object.Pod]; pod != nil {
		return pod.object.Name + "/" + t.object.Name
	}
	return ""
}

// newer reports whether a takes precedence over b. The caller holds mu.
func (s *Timelines) newer(a, b *timeline) bool {
	if x, y := s.isRemoved(a), s.isRemoved(b); x != y {
		return y
	}
	return a.serial > b.serial
}

func (s *Timelines) isRemoved(t *timeline) bool { return slices.Contains(s.removed, t.object.ID()) }

// copy returns a copy of a timeline. The caller holds mu.
func (s *Timelines) copy(t *timeline) Timeline {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := Timeline{Object: t.object, Begin: t.begun, Removed: s.isRemoved(t), Dropped: t.dropped, Steps: make([]Entry, len(t.records))}
	now := time.Since(t.begun)
	for i, r := range t.records {
		e := Entry{
			Name: r.name.String(), Parent: int(r.parent), Start: r.start, Duration: r.duration, Waits: r.name.Waits(),
			Class: r.class, Error: r.err, Attrs: r.attrs,
		}
		if r.duration == running {
			e.Running, e.Duration = true, now-r.start
		}
		out.Steps[i] = e
	}
	return out
}
