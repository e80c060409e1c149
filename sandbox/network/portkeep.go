package network

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
)

// settle makes the kernel's tables what they shall be: it makes those that this
// daemon has not made yet, also where an earlier daemon left one half done, and
// deletes those that nobody needs. With check it also restores those that somebody
// else deleted. inUse says whether pods are on a network: a table without any pod in
// it is there for its guard, because the plugin, which does UDP ports, opens the
// host's loopback and has no guard. settle reports whether all is well.
func (p *portTables) settle(ctx context.Context, check bool, inUse func(network string) bool) bool {
	p.mu.Lock()
	names := slices.Sorted(maps.Keys(p.tables))
	p.mu.Unlock()
	well := true
	for _, name := range names {
		err := p.settleOne(ctx, name, check, inUse)
		if err != nil && ctx.Err() == nil {
			logrus.WithContext(ctx).WithError(err).WithField("table", name).Error("host ports could not be restored")
		}
		well = well && err == nil
	}
	return well
}

func (p *portTables) settleOne(ctx context.Context, name string, check bool, inUse func(network string) bool) error {
	done, err := p.turns.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	p.mu.Lock()
	t := p.table(name)
	made, plan := t.made == t.plan, t.plan
	needed := t.configured || len(t.pods) > 0
	p.mu.Unlock()
	switch {
	case !needed && !inUse(strings.TrimPrefix(name, hostPortsPrefix)):
		return p.drop(ctx, name)
	case !made:
		return p.apply(ctx, name)
	case !check:
		return nil
	}
	there, err := tableExists(ctx, name)
	if there || err != nil {
		return err
	}
	logrus.WithContext(ctx).WithField("table", name).Warn("host ports were gone and are restored")
	if err := p.apply(ctx, name); err != nil {
		return errors.Join(err, p.closeLocalnet(plan))
	}
	return deleteUDPFlows(ctx, p.mappings(name), nil) // flows to the host that began without the table
}

// mappings returns the port mappings of all pods of a table.
func (p *portTables) mappings(name string) []PortMapping {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []PortMapping
	for _, pod := range p.table(name).pods {
		out = append(out, pod.mappings...)
	}
	return out
}

// closeLocalnet closes the host's loopback, which has lost its guard, until the table
// is made again.
func (p *portTables) closeLocalnet(plan hostPortPlan) error {
	if err := routeLocalnet(plan.Bridge, false); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table(plan.Table).closed = plan.SNAT
	return nil
}

// drop deletes a table that nobody needs. It is called in the table's turn.
func (p *portTables) drop(ctx context.Context, name string) error {
	p.mu.Lock()
	t := p.table(name)
	plan, ours, shared := t.plan, t.recorded != hostPortPlan{}, false
	for other, o := range p.tables {
		shared = shared || other != name && o.plan.Bridge == plan.Bridge
	}
	p.mu.Unlock()
	if ours {
		if !shared && plan.SNAT {
			if err := routeLocalnet(plan.Bridge, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := deleteTable(ctx, name); err != nil {
			return err
		}
		if err := p.files.remove(name); err != nil {
			return err
		}
		logrus.WithContext(ctx).WithField("table", name).Info("table of host ports that nobody needs any more was removed")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t.made, t.recorded = hostPortPlan{}, hostPortPlan{}
	if !t.configured && len(t.pods) == 0 {
		delete(p.tables, name)
	}
	return nil
}
