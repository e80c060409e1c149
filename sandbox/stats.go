package sandbox

import (
	"sync"
	"time"

	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/sirupsen/logrus"
)

// Stats are the stats of a pod at one moment.
type Stats struct {
	Pod  *Pod
	Time time.Time
	// Usage is the usage of the pod's cgroup and of all cgroups below it; nil if the cgroup cannot be read.
	Usage *cgroup.Usage
	// Processes is the number of processes in the pod's cgroup and in all cgroups below it.
	Processes int
	// Links are the interfaces in the network namespace of the pod; nil for a pod with the network of the host.
	Links []Link
}

// Link has the counters of one interface.
type Link = namespace.Link

// DefaultLink is the name of a pod's interface on the default network.
const DefaultLink = network.IfName

// statsCache has the last stats of a pod.
type statsCache struct {
	mu   sync.Mutex // guards last; held while the stats are read, so that concurrent callers share one read
	last Stats
}

// Stats returns the stats of pods. It omits pods that no longer exist, and leaves the fields unset that cannot be read.
func (m *Manager) Stats(pods []*Pod) []Stats {
	all := make([]Stats, 0, len(pods))
	namespace.Visit(func(links func(string) ([]namespace.Link, error)) {
		entries := m.view.Load().entries
		group := m.cgroupReader()
		for _, p := range pods {
			if e := entries[p.ID]; e != nil && !e.hidden {
				all = append(all, m.readStats(e, group, links))
			}
		}
	})
	return all
}

// cgroupStats is the result of one read of a cgroup.
type cgroupStats struct {
	stats     cgroup.Stats
	err       error
	processes int
}

// cgroupReader returns a function that reads each cgroup at most once. The kubelet gives each pod
// its own cgroup, but other clients put all pods below one cgroup, and reading a cgroup costs the
// kernel more the more cgroups are below it.
func (m *Manager) cgroupReader() func(path string) cgroupStats {
	read := make(map[string]cgroupStats)
	return func(path string) cgroupStats {
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

// readStats returns the stats of one pod, from the cache if they are fresh. links switches the network namespace of the
// thread, so readStats must run in namespace.Visit.
func (m *Manager) readStats(e *entry, read func(string) cgroupStats, links func(string) ([]namespace.Link, error)) Stats {
	e.stats.mu.Lock()
	defer e.stats.mu.Unlock()
	last := &e.stats.last
	if time.Since(last.Time) < cgroup.CacheTime {
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
		log.WithError(g.err).Debug("cannot read the stats of the pod sandbox's cgroup")
	}
	if path := e.pod.Namespaces.Net; path != "" && e.rec.ready() {
		var err error
		if s.Links, err = links(path); err != nil {
			log.WithError(err).Debug("cannot read the interfaces of the pod sandbox")
		}
	}
	*last = s
	return s
}
