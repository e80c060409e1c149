package network

import (
	"context"
	"time"

	"github.com/sirupsen/logrus"
)

// recallTables takes the tables of earlier daemons of this run directory, so that
// those that nobody needs can be deleted.
func (n *Network) recallTables(ctx context.Context) {
	contents, err := n.files.all()
	log := logrus.WithContext(ctx)
	if err != nil {
		log.WithError(err).Warn("tables of nftables of an earlier daemon are not all known")
	}
	if err := n.masquerades.recall(contents, n.gate.hasUnknown()); err != nil {
		log.WithError(err).Warn("tables of masquerading of an earlier daemon are not all known")
	}
	if err := n.ports.recall(contents); err != nil {
		log.WithError(err).Warn("tables of host ports of an earlier daemon are not all known")
	}
}

// configureTables takes what a configuration that was loaded needs.
func (n *Network) configureTables(d *loaded) {
	n.masquerades.configure(d.all())
	n.ports.configure(d.all())
	n.tablesKnown.Store(true)
	n.wakeTables()
}

// configured reports whether the loaded configuration has a network.
func (n *Network) configured(name string) bool { return n.loaded.Load().named(name) != nil }

func (n *Network) wakeTables() {
	select {
	case n.tables <- struct{}{}:
	default:
	}
}

// keepTables makes the kernel's tables what they shall be whenever that changes,
// whenever somebody else deletes one, and once a minute, until ctx ends.
func (n *Network) keepTables(ctx context.Context) {
	deleted := make(chan struct{}, 1)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		if err := watchTables(ctx, deleted); err != nil {
			logrus.WithContext(ctx).WithError(err).Warn("deletions of nftables are not noticed at once, but within a minute")
		}
	}()
	defer func() { <-watching }()
	timer := time.NewTimer(statusEvery)
	defer timer.Stop()
	for {
		check := true
		select {
		case <-ctx.Done():
			return
		case <-n.tables:
			check = false
		case <-deleted:
		case <-timer.C:
		}
		if !n.tablesKnown.Load() || n.settleTables(ctx, check) {
			timer.Reset(statusEvery)
		} else {
			timer.Reset(recheck)
		}
	}
}

// settleTables goes through both kinds of tables. Host ports come first, as their
// tables guard the host's loopback.
func (n *Network) settleTables(ctx context.Context, check bool) (well bool) {
	ports := n.ports.settle(ctx, check, n.gate.inUse)
	return n.masquerades.settle(ctx, check) && ports
}
