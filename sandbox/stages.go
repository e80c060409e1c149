package sandbox

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// stages knows what an operation is busy with, so that who has waited in vain
// can be told where it hangs.
type stages struct {
	mu     sync.Mutex // guards active
	active map[string]time.Time
}

// enter begins a stage. Its result ends it.
func (s *stages) enter(name string) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active == nil {
		s.active = make(map[string]time.Time)
	}
	s.active[name] = time.Now()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.active, name)
	}
}

func (s *stages) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(s.active)) {
		out = append(out, fmt.Sprintf("%s for %s", name, time.Since(s.active[name]).Round(time.Millisecond)))
	}
	if len(out) == 0 {
		return "between two stages"
	}
	return strings.Join(out, ", ")
}
