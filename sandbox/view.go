package sandbox

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/sandbox/podspec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// entry is the state of one pod. An entry is not modified after it is published: each change publishes a new entry.
type entry struct {
	rec  *record
	spec *podspec.Spec
	pod  *Pod
	// hidden is true for the leftovers of a pod whose id no client has received, and which are about to be removed.
	hidden bool
	// unreadable is true if the record of the pod cannot be read, so that parts of rec and spec are made up.
	unreadable bool
	// cgroup is true if this daemon holds the pod's cgroup.
	cgroup bool
	// inPlugins is true from the call of Plugins.Run to the call of Plugins.Stopped.
	inPlugins bool
	// stats is shared by all entries of a pod.
	stats *statsCache
	// idReturned is true once a caller of RunPod has received the id. It is shared by all entries of a pod.
	idReturned *atomic.Bool
	// networkFault is the error of CNI CHECK, or "".
	networkFault string
}

func newEntry(rec *record, spec *podspec.Spec) *entry {
	return &entry{rec: rec, spec: spec, stats: &statsCache{}, idReturned: new(atomic.Bool)}
}

// copy returns a copy of the entry and of its record. The copy may be modified until it is published.
func (e *entry) copy() *entry {
	rec, next := *e.rec, *e
	next.rec, next.pod = &rec, nil
	return &next
}

// view is an immutable snapshot of all pods.
type view struct {
	entries map[string]*entry // including the hidden entries
	visible map[string]*Pod
	sorted  []*Pod // the visible pods, oldest first
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

// named returns the entries with a name. At most one of them is visible.
func (v *view) named(n podspec.Name) []*entry {
	var out []*entry
	for _, e := range v.entries {
		if e.spec.Name == n {
			out = append(out, e)
		}
	}
	return out
}

// publish replaces the entry of a pod in the view.
func (m *Manager) publish(e *entry) {
	e.pod = m.snapshot(e)
	m.change(e.rec.ID, func(entries map[string]*entry) { entries[e.rec.ID] = e })
}

// forget removes the entry of a pod from the view.
func (m *Manager) forget(id string) {
	m.change(id, func(entries map[string]*entry) { delete(entries, id) })
}

// change replaces the view with a copy to which fn has applied a change of one pod, and sends the events of the change.
func (m *Manager) change(id string, fn func(map[string]*entry)) {
	before, after := m.exchange(fn)
	m.sendEvents(before.visible[id], after.visible[id])
}

func (m *Manager) exchange(fn func(map[string]*entry)) (before, after *view) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before = m.view.Load()
	entries := maps.Clone(before.entries)
	fn(entries)
	after = newView(entries)
	m.view.Store(after)
	return before, after
}

// find returns the entry of a full id or a unique prefix of an id.
func (m *Manager) find(id string) (*entry, error) {
	v := m.view.Load()
	full, err := ids.Resolve("pod sandbox", v.visible, id)
	if err != nil {
		return nil, err
	}
	return v.entries[full], nil
}

// Event is a change in the life cycle of a pod sandbox. It has the type of a container event,
// because the kubelet treats the pod sandbox as a container.
type Event struct {
	Type cri.ContainerEventType
	Pod  *Pod // after the change; for a deleted pod, its last state
}

// Subscribe calls fn for each event until cancel is called. fn must not block, and must not call Subscribe or cancel.
func (m *Manager) Subscribe(fn func(Event)) (cancel func()) { return m.events.Subscribe(fn) }

// sendEvents sends the events between two snapshots of one pod; nil for a pod that is not visible.
// The operation lock of the pod keeps the events in order.
func (m *Manager) sendEvents(before, after *Pod) {
	m.events.Send(func() []Event { return eventsBetween(before, after) })
}

func eventsBetween(before, after *Pod) []Event {
	var out []Event
	add := func(t cri.ContainerEventType, p *Pod) { out = append(out, Event{t, p}) }
	if before == nil && after == nil {
		return nil
	}
	if before == nil {
		add(cri.ContainerEventType_CONTAINER_CREATED_EVENT, after)
		if after.Ready {
			add(cri.ContainerEventType_CONTAINER_STARTED_EVENT, after)
		}
		return out
	}
	last := after
	if after == nil {
		deleted := *before
		deleted.Ready = false
		last = &deleted
	}
	if before.Ready && !last.Ready {
		add(cri.ContainerEventType_CONTAINER_STOPPED_EVENT, last)
	}
	if after == nil {
		add(cri.ContainerEventType_CONTAINER_DELETED_EVENT, last)
	}
	return out
}
