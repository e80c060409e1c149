package nat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/criserver/criserver/internal/oplock"
	"github.com/criserver/criserver/internal/steps"
)

// MasqueradeTables has the desired state of the tables for masquerading. Each table has the subnets of the loaded
// configuration and the subnets in the plans of attached pods.
type MasqueradeTables struct {
	files Files
	locks oplock.Locks // by name of the table; held while the kernel's table changes

	mu     sync.Mutex // guards tables and their content
	tables map[string]*masqueradeTable
}

// NewMasqueradeTables returns the state without tables. files records the tables.
func NewMasqueradeTables(files Files) *MasqueradeTables { return &MasqueradeTables{files: files} }

// masqueradeTable is the desired state of a table.
type masqueradeTable struct {
	configured []netip.Prefix
	attached   map[types.GCAttachment][]netip.Prefix
	// kept are the subnets of a table of an earlier daemon. They are kept for pods whose record cannot be read.
	kept []netip.Prefix
	// applied are subnets that the kernel's table has. The table may have more subnets, unless exact is true.
	applied []netip.Prefix
	exact   bool
	// owned says that this daemon or an earlier daemon has created the table.
	owned bool
}

// table returns the state of a table. It is called with mu held.
func (m *MasqueradeTables) table(name string) *masqueradeTable {
	if m.tables == nil {
		m.tables = make(map[string]*masqueradeTable)
	}
	if m.tables[name] == nil {
		m.tables[name] = &masqueradeTable{attached: make(map[types.GCAttachment][]netip.Prefix)}
	}
	return m.tables[name]
}

// desired returns the subnets that the table must have.
func (t *masqueradeTable) desired() []netip.Prefix {
	return union(append(slices.Collect(maps.Values(t.attached)), t.configured, t.kept)...)
}

// covers reports whether the kernel's table has the given subnets.
func (t *masqueradeTable) covers(subnets []netip.Prefix) bool {
	return !slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return !slices.Contains(t.applied, p) })
}

// Prepare adds the subnets of a configuration that is being loaded. If the configuration is not
// loaded, Reconcile removes them again.
func (m *MasqueradeTables) Prepare(ctx context.Context, added Masquerade, timeout time.Duration) error {
	return m.apply(ctx, added.Table, timeout, added.Subnets)
}

// Acquire keeps the subnets of an attachment in the table until Release. The table has the subnets already, unless the
// configuration has changed since the plan of the attachment was made.
func (m *MasqueradeTables) Acquire(ctx context.Context, need Masquerade, a types.GCAttachment) error {
	m.mu.Lock()
	t := m.table(need.Table)
	t.attached[a] = need.Subnets
	covered := t.covers(need.Subnets)
	m.mu.Unlock()
	if covered {
		return nil
	}
	ctx, step := steps.Start(ctx, steps.Masquerade)
	err := m.apply(ctx, need.Table, Timeout, nil)
	if step.End(err); err != nil {
		m.Release(need, a)
		return fmt.Errorf("masquerade: %w", err)
	}
	return nil
}

// Restore is Acquire for a pod that an earlier daemon has attached. It does not change the kernel's table.
func (m *MasqueradeTables) Restore(need Masquerade, a types.GCAttachment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.table(need.Table).attached[a] = need.Subnets
}

// Release reverts Acquire. It reports whether the kernel's table has unused subnets, which Reconcile removes.
func (m *MasqueradeTables) Release(need Masquerade, a types.GCAttachment) (unused bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.table(need.Table)
	delete(t.attached, a)
	return len(t.desired()) < len(t.applied)
}

// Configure sets the subnets of the loaded configuration.
func (m *MasqueradeTables) Configure(plans []Masquerade) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.tables {
		t.configured = nil
	}
	for _, plan := range plans {
		m.table(plan.Table).configured = plan.Subnets
	}
}

// Load adds the tables that earlier daemons have recorded in their files. With keep, Reconcile keeps all their subnets.
func (m *MasqueradeTables) Load(contents map[string][]byte, keep bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for name, content := range contents {
		if !strings.HasPrefix(name, masqueradePrefix) {
			continue
		}
		var recorded Masquerade
		if err := json.Unmarshal(content, &recorded); err != nil {
			errs = append(errs, fmt.Errorf("read the file of table %s, which is not changed: %w", name, err))
			continue
		}
		t := m.table(name)
		t.owned = true
		if keep {
			t.kept = recorded.Subnets
		}
	}
	return errors.Join(errs...)
}

// apply replaces the kernel's table by a table with the desired subnets and further subnets.
func (m *MasqueradeTables) apply(ctx context.Context, name string, timeout time.Duration, further []netip.Prefix) error {
	unlock, err := m.locks.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	next, isNew := m.next(name, further)
	if err = m.files.put(name, next); err == nil {
		err = runNFTTimeout(ctx, timeout, next.script(), "-f", "-")
	}
	if err != nil && isNew && !errors.Is(err, context.DeadlineExceeded) {
		err = errors.Join(err, m.files.remove(name)) // nft has not created the table
		isNew = false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.table(name)
	t.owned = t.owned || err == nil || isNew
	if err == nil {
		t.applied, t.exact = next.Subnets, true
	}
	return err
}

// next returns the table that apply is about to create. isNew is true if the daemon does not own a table of the name.
func (m *MasqueradeTables) next(name string, further []netip.Prefix) (next Masquerade, isNew bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.table(name)
	next = Masquerade{Table: name, Subnets: union(t.desired(), further)}
	// Acquire must not rely on subnets that are being removed.
	t.applied = slices.DeleteFunc(slices.Clone(t.applied), func(p netip.Prefix) bool { return !slices.Contains(next.Subnets, p) })
	t.exact = false
	return next, !t.owned
}

// union returns the sorted union of lists.
func union(lists ...[]netip.Prefix) []netip.Prefix {
	all := slices.Concat(lists...)
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}
