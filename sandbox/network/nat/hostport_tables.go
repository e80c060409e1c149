package nat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/criserver/criserver/internal/oplock"
	"github.com/sirupsen/logrus"
)

// HostPortTables has the desired state of the tables for host ports. The zero value is not valid.
type HostPortTables struct {
	files Files
	locks oplock.Locks // by name of the table; held while the kernel's table is replaced

	mu     sync.Mutex // guards tables and their content
	tables map[string]*portTable
}

// portTable is the desired state of a table.
type portTable struct {
	plan HostPorts
	pods map[string]PodPorts // by pod id
	// configured says that the loaded configuration has the network.
	configured bool
	// applied is the plan of the kernel's table if this daemon has created the table. recorded is the plan in the
	// file of the table.
	applied, recorded HostPorts
	// localnetClosed says that the daemon has closed route_localnet because the chain guard was missing.
	localnetClosed bool
}

// NewHostPortTables returns the state without tables. files records the tables.
func NewHostPortTables(files Files) *HostPortTables { return &HostPortTables{files: files} }

// Configure sets the plans of the loaded configuration.
func (p *HostPortTables) Configure(plans []HostPorts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.tables {
		t.configured = false
	}
	for _, plan := range plans {
		t := p.table(plan.Table)
		t.plan, t.configured = plan, true
	}
}

// Load adds the tables that earlier daemons have recorded in their files.
func (p *HostPortTables) Load(contents map[string][]byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for name, content := range contents {
		if !strings.HasPrefix(name, hostPortsPrefix) {
			continue
		}
		var plan HostPorts
		err := json.Unmarshal(content, &plan)
		if err == nil && plan.Table != name {
			err = fmt.Errorf("the file describes table %q", plan.Table)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read the file of table %s, which is not changed: %w", name, err))
			continue
		}
		t := p.table(name)
		t.recorded = plan
		if len(t.pods) == 0 {
			t.plan = plan
		}
	}
	return errors.Join(errs...)
}

// table returns the state of a table. It is called with mu held.
func (p *HostPortTables) table(name string) *portTable {
	if p.tables == nil {
		p.tables = make(map[string]*portTable)
	}
	if p.tables[name] == nil {
		p.tables[name] = &portTable{pods: make(map[string]PodPorts)}
	}
	return p.tables[name]
}

// set sets the host ports of a pod, or removes them if ports is nil. It returns the host ports before the call.
func (p *HostPortTables) set(plan HostPorts, pod string, ports *PodPorts) (before *PodPorts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.table(plan.Table)
	if ports != nil {
		t.plan = plan // the latest plan decides about SNAT
	}
	if old, ok := t.pods[pod]; ok {
		before = &old
	}
	delete(t.pods, pod)
	if ports != nil {
		t.pods[pod] = *ports
	}
	return before
}

// update sets the host ports of a pod and replaces the kernel's table. If update fails, nothing has changed.
func (p *HostPortTables) update(ctx context.Context, plan HostPorts, pod string, ports *PodPorts) error {
	unlock, err := p.locks.Lock(ctx, plan.Table)
	if err != nil {
		return err
	}
	defer unlock()
	before := p.set(plan, pod, ports)
	if before == nil && ports == nil {
		return nil
	}
	if err := p.apply(ctx, plan.Table); err != nil {
		p.set(plan, pod, before)
		return fmt.Errorf("update host ports: %w", err)
	}
	return nil
}

// apply replaces the kernel's table. The caller holds the lock of the table.
func (p *HostPortTables) apply(ctx context.Context, name string) error {
	p.mu.Lock()
	t := p.tables[name]
	script, plan, recorded, closed := t.script(), t.plan, t.recorded, t.localnetClosed
	p.mu.Unlock()
	if recorded != plan {
		if err := p.files.put(name, plan); err != nil {
			return err
		}
	}
	if err := runNFT(ctx, script, "-f", "-"); err != nil {
		return err
	}
	if closed {
		if err := setRouteLocalnet(plan.Bridge, true); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t.applied, t.recorded, t.localnetClosed = plan, plan, false
	return nil
}

// Reconcile creates the tables that this daemon has not created yet, including incomplete tables of
// earlier daemons, and deletes unused tables. With check it also restores tables that another
// program has deleted. inUse reports whether pods are attached to a network. A table without host
// ports is not deleted while pods are attached, because its chain guard also protects the host's
// loopback if the portmap plugin has set route_localnet. Reconcile reports whether all tables are
// in the desired state.
func (p *HostPortTables) Reconcile(ctx context.Context, check bool, inUse func(network string) bool) bool {
	p.mu.Lock()
	names := slices.Sorted(maps.Keys(p.tables))
	p.mu.Unlock()
	ok := true
	for _, name := range names {
		err := p.reconcileTable(ctx, name, check, inUse)
		if err != nil && ctx.Err() == nil {
			logrus.WithContext(ctx).WithError(err).WithField("table", name).Error("failed to reconcile the table of host ports")
		}
		ok = ok && err == nil
	}
	return ok
}

// reconcileTable deletes a table that no configuration and no pod needs, or applies a changed plan. With check,
// reconcileTable also restores the table if another program has deleted the table.
func (p *HostPortTables) reconcileTable(ctx context.Context, name string, check bool, inUse func(network string) bool) error {
	unlock, err := p.locks.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	p.mu.Lock()
	t := p.table(name)
	applied, plan := t.applied == t.plan, t.plan
	needed := t.configured || len(t.pods) > 0
	p.mu.Unlock()
	switch {
	case !needed && !inUse(strings.TrimPrefix(name, hostPortsPrefix)):
		return p.deleteUnused(ctx, name)
	case !applied:
		return p.apply(ctx, name)
	case !check:
		return nil
	}
	exists, err := tableExists(ctx, name)
	if exists || err != nil {
		return err
	}
	logrus.WithContext(ctx).WithField("table", name).Warn("the table of host ports was deleted by another program; the daemon restores the table")
	if err := p.apply(ctx, name); err != nil {
		return errors.Join(err, p.closeLoopback(plan))
	}
	// Flows that began without the table would bypass the new table.
	return deleteUDPFlows(ctx, p.mappings(name), nil)
}

// mappings returns the port mappings of all pods of a table.
func (p *HostPortTables) mappings(name string) []PortMapping {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []PortMapping
	for _, pod := range p.table(name).pods {
		out = append(out, pod.Mappings...)
	}
	return out
}

// deleteUnused deletes an unused table. The caller holds the lock of the table.
func (p *HostPortTables) deleteUnused(ctx context.Context, name string) error {
	p.mu.Lock()
	t := p.table(name)
	plan, owned, shared := t.plan, t.recorded != HostPorts{}, false // shared: another table uses the bridge
	for other, o := range p.tables {
		shared = shared || other != name && o.plan.Bridge == plan.Bridge
	}
	p.mu.Unlock()
	if owned {
		if !shared && plan.SNAT {
			if err := setRouteLocalnet(plan.Bridge, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := deleteTable(ctx, name); err != nil {
			return err
		}
		if err := p.files.remove(name); err != nil {
			return err
		}
		logrus.WithContext(ctx).WithField("table", name).Info("deleted the unused table of host ports")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t.applied, t.recorded = HostPorts{}, HostPorts{}
	if !t.configured && len(t.pods) == 0 {
		delete(p.tables, name)
	}
	return nil
}
