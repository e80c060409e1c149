package sandbox

import (
	"slices"
	"sync"
	"testing"

	"github.com/criserver/criserver/sandbox/namespace"
)

func TestStats(t *testing.T) {
	b := newBed(t, "")
	m := b.start()
	p := mustRun(t, m, hostPod("h"))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			s := m.Stats([]*Pod{p})
			if len(s) != 1 || s[0].Pod != p || s[0].Usage == nil || s[0].Links != nil {
				t.Errorf("stats of a pod with the host's network: %+v", s)
			}
		})
	}
	wg.Wait()
	if err := m.Stop(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if s := m.Stats([]*Pod{p}); len(s) != 1 || s[0].Pod.Ready {
		t.Errorf("a stopped pod is shown as it was: %+v", s)
	}
	// Slow machines may need more than the second for which figures are kept.
	if b.cgroups.read > 5 {
		t.Errorf("figures were read %d times for callers of one moment", b.cgroups.read)
	}
	mustRemove(t, m, p.ID)
	if s := m.Stats([]*Pod{p}); len(s) != 0 {
		t.Errorf("a removed pod: %+v", s)
	}
}

func TestStatsHaveTheLinksOfThePod(t *testing.T) {
	b := newBed(t, "")
	m := b.start()
	p := mustRun(t, m, hostPod("h"))
	// The test's own namespace stands for the pod's.
	e := *m.view.Load().entries[p.ID]
	with := *p
	with.Namespaces.Net = "/proc/thread-self/ns/net"
	e.pod = &with
	namespace.Visit(func(links func(string) ([]namespace.Link, error)) {
		s := m.readStats(&e, m.cgroupReader(), links)
		if !slices.ContainsFunc(s.Links, func(l namespace.Link) bool { return l.Name == "lo" }) {
			t.Errorf("links: %+v", s.Links)
		}
		with.Namespaces.Net = "/nowhere"
		e.stats = &statsCache{}
		if s := m.readStats(&e, m.cgroupReader(), links); s.Links != nil || s.Usage == nil {
			t.Errorf("a namespace that is gone takes the rest with it: %+v", s)
		}
	})
	mustRemove(t, m, p.ID)
}
