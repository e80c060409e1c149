package network

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
	"github.com/sirupsen/logrus"
)

// masqTables is the tables of masquerading as they shall be: each has the subnets of
// the loaded configuration and those that attached pods were planned with.
type masqTables struct {
	files tableFiles
	turns oplock.Locks // by table, held while the kernel's is changed

	mu     sync.Mutex // guards all below
	tables map[string]*masqTable
}

type masqTable struct {
	configured []netip.Prefix
	attached   map[types.GCAttachment][]netip.Prefix
	// kept are subnets of a table of an earlier daemon that pods with a record that
	// cannot be read may need.
	kept []netip.Prefix
	// applied are the subnets that the kernel's table has at least; nil when that is
	// not known.
	applied []netip.Prefix
	// exact says that the kernel's table has nothing else.
	exact bool
	// ours says that this daemon or an earlier one has made the table.
	ours bool
}

// table is called with mu held.
func (m *masqTables) table(name string) *masqTable {
	if m.tables == nil {
		m.tables = make(map[string]*masqTable)
	}
	if m.tables[name] == nil {
		m.tables[name] = &masqTable{attached: make(map[types.GCAttachment][]netip.Prefix)}
	}
	return m.tables[name]
}

// wanted returns the subnets that the table shall have.
func (t *masqTable) wanted() []netip.Prefix {
	return union(append(slices.Collect(maps.Values(t.attached)), t.configured, t.kept)...)
}

// covers reports whether the kernel's table has at least the given subnets.
func (t *masqTable) covers(subnets []netip.Prefix) bool {
	return !slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return !slices.Contains(t.applied, p) })
}

// offer adds the subnets of a configuration that is being loaded. If it is not loaded
// after all, settle takes them out again.
func (m *masqTables) offer(ctx context.Context, add masquerade, within time.Duration) error {
	return m.apply(ctx, add.Table, within, add.Subnets)
}

// hold keeps the subnets of a pod in the table until release. The table has them
// already, unless the configuration was changed after the pod was planned.
func (m *masqTables) hold(ctx context.Context, need masquerade, a types.GCAttachment) error {
	m.mu.Lock()
	t := m.table(need.Table)
	t.attached[a] = need.Subnets
	there := t.covers(need.Subnets)
	m.mu.Unlock()
	if there {
		return nil
	}
	err := m.apply(ctx, need.Table, nftTimeout, nil)
	if err != nil {
		m.release(need, a)
		return fmt.Errorf("masquerade: %w", err)
	}
	return nil
}

// adopt is hold for a pod that an earlier daemon attached.
func (m *masqTables) adopt(need masquerade, a types.GCAttachment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.table(need.Table).attached[a] = need.Subnets
}

// release ends hold. It reports whether the kernel's table may have subnets that nobody
// needs any more, which settle takes out.
func (m *masqTables) release(need masquerade, a types.GCAttachment) (unneeded bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.table(need.Table)
	delete(t.attached, a)
	return len(t.wanted()) < len(t.applied)
}

// configure takes the subnets of the configuration that was loaded.
func (m *masqTables) configure(loaded []*list) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.tables {
		t.configured = nil
	}
	for _, l := range loaded {
		if l.masquerade != nil {
			m.table(l.masquerade.Table).configured = l.masquerade.Subnets
		}
	}
}

// recall takes the tables of earlier daemons. With keep all their subnets stay.
func (m *masqTables) recall(contents map[string][]byte, keep bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for name, content := range contents {
		if !strings.HasPrefix(name, masqueradePrefix) {
			continue
		}
		var was masquerade
		if err := json.Unmarshal(content, &was); err != nil {
			errs = append(errs, fmt.Errorf("table %s is left as it is: %w", name, err))
			continue
		}
		t := m.table(name)
		t.ours = true
		if keep {
			t.kept = was.Subnets
		}
	}
	return errors.Join(errs...)
}

// settle makes the kernel's tables what they shall be, and deletes those that nobody
// needs. With check it also restores those that somebody else deleted. It reports
// whether all is well.
func (m *masqTables) settle(ctx context.Context, check bool) bool {
	m.mu.Lock()
	names := slices.Sorted(maps.Keys(m.tables))
	m.mu.Unlock()
	well := true
	for _, name := range names {
		err := m.settleOne(ctx, name, check)
		if err != nil && ctx.Err() == nil {
			logrus.WithContext(ctx).WithError(err).WithField("table", name).Error("masquerading could not be checked or restored")
		}
		well = well && err == nil
	}
	return well
}

func (m *masqTables) settleOne(ctx context.Context, name string, check bool) error {
	m.mu.Lock()
	t := m.table(name)
	wanted := t.wanted()
	right := t.exact && slices.Equal(t.applied, wanted)
	m.mu.Unlock()
	switch {
	case len(wanted) == 0:
		return m.drop(ctx, name)
	case !right:
		return m.apply(ctx, name, nftTimeout, nil)
	case !check:
		return nil
	}
	there, err := tableExists(ctx, name)
	if there || err != nil {
		return err
	}
	logrus.WithContext(ctx).WithField("table", name).Warn("masquerading was gone and is restored")
	return m.apply(ctx, name, nftTimeout, nil)
}

// apply replaces the kernel's table by one with the subnets that are wanted, and more.
func (m *masqTables) apply(ctx context.Context, name string, within time.Duration, more []netip.Prefix) error {
	done, err := m.turns.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	next, isNew := m.begin(name, more)
	if err = m.files.put(name, next); err == nil {
		err = nftWithin(ctx, within, next.script(), "-f", "-")
	}
	if err != nil && isNew && !errors.Is(err, context.DeadlineExceeded) {
		err = errors.Join(err, m.files.remove(name)) // nft has made no table
		isNew = false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.table(name)
	t.ours = t.ours || err == nil || isNew
	if err == nil {
		t.applied, t.exact = next.Subnets, true
	}
	return err
}

// begin returns what apply is about to put in the place of a table, and whether there
// was none before.
func (m *masqTables) begin(name string, more []netip.Prefix) (next masquerade, isNew bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.table(name)
	next = masquerade{Table: name, Subnets: union(t.wanted(), more)}
	// hold must not rely on what is being taken out.
	t.applied = slices.DeleteFunc(slices.Clone(t.applied), func(p netip.Prefix) bool { return !slices.Contains(next.Subnets, p) })
	t.exact = false
	return next, !t.ours
}

func union(lists ...[]netip.Prefix) []netip.Prefix {
	all := slices.Concat(lists...)
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// drop deletes a table that nobody needs.
func (m *masqTables) drop(ctx context.Context, name string) error {
	done, err := m.turns.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	m.mu.Lock()
	t := m.table(name)
	ours, needed := t.ours, len(t.wanted()) > 0 // by a pod that was attached meanwhile
	if !needed {
		t.applied, t.exact = nil, false
	}
	m.mu.Unlock()
	if needed {
		return nil
	}
	if ours {
		if err := deleteTable(ctx, name); err != nil {
			return err
		}
		if err := m.files.remove(name); err != nil {
			return err
		}
		logrus.WithContext(ctx).WithField("table", name).Info("masquerading that nobody needs any more was removed")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.ours = false; len(t.wanted()) == 0 {
		delete(m.tables, name)
	}
	return nil
}
