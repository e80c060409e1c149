package nat

import (
	"context"
	"maps"
	"slices"

	"github.com/sirupsen/logrus"
)

// Reconcile brings the kernel's tables into the desired state and deletes unused tables. With check
// it also restores tables that another program has deleted. It reports whether all tables are in
// the desired state.
func (m *MasqueradeTables) Reconcile(ctx context.Context, check bool) bool {
	m.mu.Lock()
	names := slices.Sorted(maps.Keys(m.tables))
	m.mu.Unlock()
	ok := true
	for _, name := range names {
		err := m.reconcileTable(ctx, name, check)
		if err != nil && ctx.Err() == nil {
			logrus.WithContext(ctx).WithError(err).WithField("table", name).Error("failed to reconcile the table for masquerading")
		}
		ok = ok && err == nil
	}
	return ok
}

func (m *MasqueradeTables) reconcileTable(ctx context.Context, name string, check bool) error {
	m.mu.Lock()
	t := m.table(name)
	desired := t.desired()
	upToDate := t.exact && slices.Equal(t.applied, desired)
	m.mu.Unlock()
	switch {
	case len(desired) == 0:
		return m.deleteUnused(ctx, name)
	case !upToDate:
		return m.apply(ctx, name, Timeout, nil)
	case !check:
		return nil
	}
	exists, err := tableExists(ctx, name)
	if exists || err != nil {
		return err
	}
	logrus.WithContext(ctx).WithField("table", name).Warn("the table for masquerading was deleted by another program; the daemon restores the table")
	return m.apply(ctx, name, Timeout, nil)
}

// deleteUnused deletes an unused table.
func (m *MasqueradeTables) deleteUnused(ctx context.Context, name string) error {
	unlock, err := m.locks.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	m.mu.Lock()
	t := m.table(name)
	owned, used := t.owned, len(t.desired()) > 0 // another goroutine may have attached a pod
	if !used {
		t.applied, t.exact = nil, false
	}
	m.mu.Unlock()
	if used {
		return nil
	}
	if owned {
		if err := deleteTable(ctx, name); err != nil {
			return err
		}
		if err := m.files.remove(name); err != nil {
			return err
		}
		logrus.WithContext(ctx).WithField("table", name).Info("deleted the unused table for masquerading")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.owned = false; len(t.desired()) == 0 {
		delete(m.tables, name)
	}
	return nil
}
