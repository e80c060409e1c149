package network

import (
	"context"
	"errors"
	"time"

	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/sandbox/network/nat"
	"github.com/sirupsen/logrus"
)

// loadTables adds the tables of earlier daemons of this run directory, so that the daemon can delete unused tables.
func (n *Network) loadTables(ctx context.Context) {
	contents, err := n.files.All()
	log := logrus.WithContext(ctx)
	if err != nil {
		log.WithError(err).Warn("failed to read the table files of an earlier daemon; unused tables may remain")
	}
	if err := n.masquerades.Load(contents, n.attachments.hasUnreadable()); err != nil {
		log.WithError(err).Warn("failed to load the tables for masquerading of an earlier daemon")
	}
	if err := n.ports.Load(contents); err != nil {
		log.WithError(err).Warn("failed to load the tables of host ports of an earlier daemon")
	}
}

// RemoveTemporaryFiles removes the temporary files that an earlier daemon has left in the directories of n. The caller
// calls RemoveTemporaryFiles before all other methods.
func (n *Network) RemoveTemporaryFiles() error {
	return errors.Join(atomicfile.RemoveTemporary(n.files.Dir), atomicfile.RemoveTemporary(n.defaultBridge.Dir()))
}

// RemoveTables deletes the tables that no attached pod needs. A network in the loaded configuration does not keep its
// tables. The caller calls RemoveTables after Run has returned. The next Run creates the tables again.
func (n *Network) RemoveTables(ctx context.Context) error {
	n.masquerades.Configure(nil)
	n.ports.Configure(nil)
	if !n.reconcileTables(ctx, false) {
		return errors.New("delete nftables tables: the log has the errors")
	}
	return nil
}

// configureTables sets the tables of the loaded configuration.
func (n *Network) configureTables(d *loaded) {
	var masquerades []nat.Masquerade
	var ports []nat.HostPorts
	for _, l := range d.all() {
		if l.masquerade != nil {
			masquerades = append(masquerades, *l.masquerade)
		}
		if l.hostPorts != nil {
			ports = append(ports, *l.hostPorts)
		}
	}
	n.masquerades.Configure(masquerades)
	n.ports.Configure(ports)
	n.confLoaded.Store(true)
	n.requestReconcile()
}

// configured reports whether the loaded configuration has a network.
func (n *Network) configured(name string) bool { return n.loaded.Load().byName(name) != nil }

// requestReconcile makes reconcileLoop reconcile the tables.
func (n *Network) requestReconcile() {
	select {
	case n.reconcileRequests <- struct{}{}:
	default:
	}
}

// reconcileLoop reconciles the tables when their desired state has changed, when another program
// has deleted a table, and once a minute, until ctx ends.
func (n *Network) reconcileLoop(ctx context.Context) {
	deleted := make(chan struct{}, 1)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		if err := nat.WatchTables(ctx, deleted); err != nil {
			logrus.WithContext(ctx).WithError(err).Warn("cannot watch nftables; the daemon notices deleted tables within a minute")
		}
	}()
	defer func() { <-watching }()
	timer := time.NewTimer(checkInterval)
	defer timer.Stop()
	for {
		check := true
		select {
		case <-ctx.Done():
			return
		case <-n.reconcileRequests:
			check = false
		case <-deleted:
		case <-timer.C:
		}
		if !n.confLoaded.Load() || n.reconcileTables(ctx, check) {
			timer.Reset(checkInterval)
		} else {
			timer.Reset(retryInterval)
		}
	}
}

// reconcileTables reconciles all tables. The tables of host ports come first, because they protect the host's loopback.
func (n *Network) reconcileTables(ctx context.Context, check bool) (ok bool) {
	ports := n.ports.Reconcile(ctx, check, n.attachments.InUse)
	return n.masquerades.Reconcile(ctx, check) && ports
}
