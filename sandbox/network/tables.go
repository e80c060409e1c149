package network

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/sirupsen/logrus"
)

// loadTables adds the tables of earlier daemons of this run directory, so that the daemon can delete unused tables.
func (n *Network) loadTables(ctx context.Context) {
	contents, err := n.files.all()
	log := logrus.WithContext(ctx)
	if err != nil {
		log.WithError(err).Warn("failed to read the table files of an earlier daemon; unused tables may remain")
	}
	if err := n.masquerades.load(contents, n.attachments.hasUnreadable()); err != nil {
		log.WithError(err).Warn("failed to load the tables for masquerading of an earlier daemon")
	}
	if err := n.ports.load(contents); err != nil {
		log.WithError(err).Warn("failed to load the tables of host ports of an earlier daemon")
	}
}

// configureTables sets the tables of the loaded configuration.
func (n *Network) configureTables(d *loaded) {
	n.masquerades.configure(d.all())
	n.ports.configure(d.all())
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
		if err := watchTables(ctx, deleted); err != nil {
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
	ports := n.ports.reconcile(ctx, check, n.attachments.inUse)
	return n.masquerades.reconcile(ctx, check) && ports
}

// tableFiles is a directory with a file for each nftables table that a daemon of this run directory
// has created or is about to create. The content of the file describes the table. A table without a
// file belongs to another daemon and is never deleted.
type tableFiles struct{ dir string }

// put writes the file of a table.
func (f tableFiles) put(table string, content any) error {
	b, err := json.Marshal(content)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(f.dir, table), b, 0o600)
}

// remove removes the file of a table if the file exists.
func (f tableFiles) remove(table string) error {
	if err := os.Remove(filepath.Join(f.dir, table)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// all returns the contents of all files by name of the table.
func (f tableFiles) all() (map[string][]byte, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := make(map[string][]byte)
	var errs []error
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(f.dir, e.Name()))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[e.Name()] = b
	}
	return out, errors.Join(errs...)
}
