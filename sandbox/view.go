package sandbox

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/podspec"
)

// entry is all that is known of a pod. It is never written to: a change makes a
// new one.
type entry struct {
	rec  *record
	spec *podspec.Spec
	pod  *Pod
	// hidden pods are remains that are about to be removed and that nobody
	// outside was ever told of.
	hidden bool
	// unread says that the record could not be read, so that much is not known.
	unread bool
	// cgroup says that this daemon holds the pod's cgroup.
	cgroup bool
	// told says that plugins take the pod for one that runs.
	told bool
	// gauge is shared by all entries that a pod has in the course of time.
	gauge *gauge
	// idReturned is true once a caller of RunPod has received the id. All entries of a pod share idReturned.
	idReturned *atomic.Bool
	// fault is what plugins found wrong with the pod's network, or "".
	fault string
}

func newEntry(rec *record, spec *podspec.Spec) *entry {
	return &entry{rec: rec, spec: spec, gauge: &gauge{}, idReturned: new(atomic.Bool)}
}

// view is an immutable picture of all pods.
type view struct {
	entries map[string]*entry
	visible map[string]*Pod
	sorted  []*Pod // the oldest first
}

func newView(entries map[string]*entry) *view {
	v := &view{entries: entries, visible: make(map[string]*Pod, len(entries))}
	for id, e := range entries {
		if !e.hidden {
			v.visible[id] = e.pod
			v.sorted = append(v.sorted, e.pod)
		}
	}
	slices.SortFunc(v.sorted, func(a, b *Pod) int {
		if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return v
}

// named returns the pods of a name: one at most is visible.
func (v *view) named(n podspec.Name) []*entry {
	var out []*entry
	for _, e := range v.entries {
		if e.spec.Name == n {
			out = append(out, e)
		}
	}
	return out
}

// publish shows a pod as it is now.
func (m *Manager) publish(e *entry) {
	e.pod = m.snapshot(e)
	m.change(e.rec.ID, func(all map[string]*entry) { all[e.rec.ID] = e })
}

func (m *Manager) forget(id string) {
	m.change(id, func(all map[string]*entry) { delete(all, id) })
}

// change replaces the view by one in which fn changed the pod, and tells of it.
func (m *Manager) change(id string, fn func(map[string]*entry)) {
	before, after := m.exchange(fn)
	m.announce(before.visible[id], after.visible[id])
}

func (m *Manager) exchange(fn func(map[string]*entry)) (before, after *view) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before = m.view.Load()
	all := maps.Clone(before.entries)
	fn(all)
	after = newView(all)
	m.view.Store(after)
	return before, after
}

func (m *Manager) snapshot(e *entry) *Pod {
	r, dir := e.rec, m.dirs.pod(e.rec.ID)
	p := &Pod{
		ID:             r.ID,
		Config:         e.spec.Config,
		RuntimeHandler: r.Handler,
		CreatedAt:      r.CreatedAt,
		Ready:          r.ready(),
		Unread:         e.unread,
		NotReadyReason: r.notReadyReason(),
		Namespaces:     m.namespaces(r.ID, e.spec.Namespaces),
		IPs:            r.IPs,
		CNIResult:      r.CNIResult,
		Interfaces:     r.Interfaces,
		NetworkFault:   e.fault,
		CgroupParent:   cgroupPath(r.CgroupParent),
		ProcessLabel:   r.ProcessLabel,
		MountLabel:     r.MountLabel,
		HostName:       r.HostName,
		Hosts:          filepath.Join(dir, hostsFile),
		Hostname:       filepath.Join(dir, hostnameFile),
		ResolvConf:     filepath.Join(dir, resolvConfFile),
	}
	p.Overhead, p.Resources = r.limits(e.spec.Config)
	if !e.spec.Namespaces.HostIPC {
		p.Shm = filepath.Join(dir, shmDir)
	}
	if r.Pause != nil && r.Lost == "" {
		p.PausePID = r.Pause.PID
		if m.cfg.CgroupDriver == Systemd {
			p.PauseUnit = pauseUnit(r)
		}
	}
	return p
}

// namespaces returns where the pod's own namespaces are pinned.
func (m *Manager) namespaces(id string, own podspec.Namespaces) Namespaces {
	var n Namespaces
	pin := func(name string) string { return filepath.Join(m.dirs.pin(id), name) }
	if !own.HostNetwork {
		n.Net, n.UTS = pin(namespace.Net), pin(namespace.UTS)
	}
	if !own.HostIPC {
		n.IPC = pin(namespace.IPC)
	}
	if own.SharedPID {
		n.PID = pin(namespace.PID)
	}
	if own.User != nil {
		n.User = pin(namespace.User)
	}
	return n
}

// find returns the entry of a full id or a unique prefix.
func (m *Manager) find(id string) (*entry, error) {
	v := m.view.Load()
	full, err := ids.Resolve("pod sandbox", v.visible, id)
	if err != nil {
		return nil, err
	}
	return v.entries[full], nil
}
