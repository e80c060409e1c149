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
				t.Errorf("pod with the network of the host: got %+v", s)
			}
		})
	}
	wg.Wait()
	if err := m.Stop(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if s := m.Stats([]*Pod{p}); len(s) != 1 || s[0].Pod.Ready {
		t.Errorf("stopped pod: got %+v", s)
	}
	// A slow machine may take longer than the second for which stats are fresh.
	if b.cgroups.read > 5 {
		t.Errorf("concurrent callers read the cgroup %d times", b.cgroups.read)
	}
	mustRemove(t, m, p.ID)
	if s := m.Stats([]*Pod{p}); len(s) != 0 {
		t.Errorf("removed pod: got %+v", s)
	}
}

func TestStatsOfLinks(t *testing.T) {
	b := newBed(t, "")
	m := b.start()
	p := mustRun(t, m, hostPod("h"))
	// The test uses its own network namespace as the namespace of the pod.
	e := *m.view.Load().entries[p.ID]
	with := *p
	with.Namespaces.Net = "/proc/thread-self/ns/net"
	e.pod = &with
	namespace.Visit(func(links func(string) ([]namespace.Link, error)) {
		s := m.readStats(&e, m.cgroupReader(), links)
		if !slices.ContainsFunc(s.Links, func(l namespace.Link) bool { return l.Name == "lo" }) {
			t.Errorf("got links %+v, want lo", s.Links)
		}
		with.Namespaces.Net = "/nowhere"
		e.stats = &statsCache{}
		if s := m.readStats(&e, m.cgroupReader(), links); s.Links != nil || s.Usage == nil {
			t.Errorf("missing network namespace: got %+v", s)
		}
	})
	mustRemove(t, m, p.ID)
}
