package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"sync"

	"github.com/criserver/criserver/internal/oplock"
)

// podPorts is a pod's part of a table.
type podPorts struct {
	addrs    []netip.Prefix // of eth0, with the lengths of their subnets
	mappings []PortMapping
}

// portTables is all tables as they shall be.
type portTables struct {
	files tableFiles
	turns oplock.Locks // by table, held while it is replaced

	mu     sync.Mutex // guards tables and what is in them
	tables map[string]*portTable
}

type portTable struct {
	plan hostPortPlan
	pods map[string]podPorts
	// configured says that the loaded configuration has the network.
	configured bool
	// made is the plan by which this daemon made the kernel's table; zero if it did
	// not. recorded is the plan that is in the table's file.
	made, recorded hostPortPlan
	// closed says that the host's loopback was closed for want of a guard.
	closed bool
}

// configure takes the plans of the configuration that was loaded.
func (p *portTables) configure(loaded []*list) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.tables {
		t.configured = false
	}
	for _, l := range loaded {
		if l.hostPorts != nil {
			t := p.table(l.hostPorts.Table)
			t.plan, t.configured = *l.hostPorts, true
		}
	}
}

// recall takes the tables of earlier daemons.
func (p *portTables) recall(contents map[string][]byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for name, content := range contents {
		if !strings.HasPrefix(name, hostPortsPrefix) {
			continue
		}
		var plan hostPortPlan
		err := json.Unmarshal(content, &plan)
		if err == nil && plan.Table != name {
			err = fmt.Errorf("its file is of table %q", plan.Table)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("table %s is left as it is: %w", name, err))
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

// table is called with mu held.
func (p *portTables) table(name string) *portTable {
	if p.tables == nil {
		p.tables = make(map[string]*portTable)
	}
	if p.tables[name] == nil {
		p.tables[name] = &portTable{pods: make(map[string]podPorts)}
	}
	return p.tables[name]
}

// set gives a pod its part of a table, or takes it when that is nil, and returns
// what it was.
func (p *portTables) set(plan hostPortPlan, pod string, part *podPorts) (before *podPorts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.table(plan.Table)
	if part != nil {
		t.plan = plan // the latest says whether loopback counts
	}
	if was, ok := t.pods[pod]; ok {
		before = &was
	}
	delete(t.pods, pod)
	if part != nil {
		t.pods[pod] = *part
	}
	return before
}

// change sets a pod's part and has the kernel follow. When it fails nothing has
// changed.
func (p *portTables) change(ctx context.Context, plan hostPortPlan, pod string, part *podPorts) error {
	done, err := p.turns.Lock(ctx, plan.Table)
	if err != nil {
		return err
	}
	defer done()
	before := p.set(plan, pod, part)
	if before == nil && part == nil {
		return nil
	}
	if err := p.apply(ctx, plan.Table); err != nil {
		p.set(plan, pod, before)
		return fmt.Errorf("host ports: %w", err)
	}
	return nil
}

// apply is called in the table's turn.
func (p *portTables) apply(ctx context.Context, name string) error {
	p.mu.Lock()
	t := p.tables[name]
	script, plan, recorded, closed := t.script(), t.plan, t.recorded, t.closed
	p.mu.Unlock()
	if recorded != plan {
		if err := p.files.put(name, plan); err != nil {
			return err
		}
	}
	if err := nft(ctx, script, "-f", "-"); err != nil {
		return err
	}
	if closed {
		if err := routeLocalnet(plan.Bridge, true); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t.made, t.recorded, t.closed = plan, plan, false
	return nil
}
