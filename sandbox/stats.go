package sandbox

import (
	"sync"
	"time"

	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/sirupsen/logrus"
)

// Stats are the figures of a pod at one moment.
type Stats struct {
	Pod  *Pod
	Time time.Time
	// Usage is that of the pod's cgroup and all below it; nil without a cgroup.
	Usage *cgroup.Usage
	// Processes are those in the pod's cgroup and below it.
	Processes int
	// Links are the interfaces of the pod's own network namespace, nil for a pod
	// that has the host's.
	Links []Link
}

// Link is what has gone through one interface.
type Link = namespace.Link

// DefaultLink is the name of a pod's first interface.
const DefaultLink = network.IfName

// gauge remembers a pod's last figures. It stays the same when the pod's entry
// is replaced.
type gauge struct {
	mu   sync.Mutex // guards last, and is held while reading, so that who comes meanwhile shares it
	last Stats
}

// Stats returns the figures of pods. What cannot be read of one is missing in
// its figures; a pod that is gone is left out.
func (m *Manager) Stats(pods []*Pod) []Stats {
	all := make([]Stats, 0, len(pods))
	namespace.Visit(func(links func(string) ([]namespace.Link, error)) {
		entries := m.view.Load().entries
		group := m.groupReader()
		for _, p := range pods {
			if e := entries[p.ID]; e != nil && !e.hidden {
				all = append(all, m.measure(e, group, links))
			}
		}
	})
	return all
}

// group is what is read of a cgroup.
type group struct {
	stats     cgroup.Stats
	err       error
	processes int
}

// groupReader reads each cgroup once. Pods have one each from the kubelet, but
// other clients put all theirs below one parent, which costs the kernel more
// the more there is in it.
func (m *Manager) groupReader() func(path string) group {
	read := make(map[string]group)
	return func(path string) group {
		g, ok := read[path]
		if ok {
			return g
		}
		g.stats, g.err = m.cfg.Cgroups.Stats(path)
		if pids, err := m.cfg.Cgroups.Pids(path); err == nil {
			g.processes = len(pids)
		}
		read[path] = g
		return g
	}
}

// measure is called on a thread of which the network namespace changes.
func (m *Manager) measure(e *entry, read func(string) group, links func(string) ([]namespace.Link, error)) Stats {
	e.gauge.mu.Lock()
	defer e.gauge.mu.Unlock()
	last := &e.gauge.last
	if time.Since(last.Time) < cgroup.Fresh {
		s := *last
		s.Pod = e.pod
		return s
	}
	s := Stats{Pod: e.pod, Time: time.Now()}
	log := logrus.WithField("pod", e.rec.ID)
	g := read(e.pod.CgroupParent)
	s.Processes = g.processes
	if g.err == nil {
		var before cgroup.Usage
		if last.Usage != nil {
			before = *last.Usage
		}
		u := before.Next(g.stats)
		s.Usage = &u
	} else {
		log.WithError(g.err).Debug("figures of the pod sandbox's cgroup cannot be read")
	}
	if path := e.pod.Namespaces.Net; path != "" && e.rec.ready() {
		var err error
		if s.Links, err = links(path); err != nil {
			log.WithError(err).Debug("interfaces of the pod sandbox cannot be read")
		}
	}
	*last = s
	return s
}
