package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

// Reload loads the networks from the configuration directories. If there is no network, Status
// returns the reason. Reload uses the valid files if other files cannot be read. It logs the
// changes and reports whether anything has changed.
//
// timeout bounds each call of nft that prepares a network. After a timeout Reload keeps the earlier
// configuration and returns the error. The caller tries again with more time, so that a slow
// machine gets the same result as a fast one.
func (n *Network) Reload(ctx context.Context, timeout time.Duration) (changed bool, err error) {
	cfg := n.cfg()
	before, next := n.loaded.Load(), n.load(cfg)
	n.addDefaultBridge(ctx, cfg, next)
	if next.equal(before) {
		return false, nil
	}
	if err := n.prepare(ctx, next, timeout); err != nil {
		if before.list == nil {
			n.replace(before, &loaded{err: fmt.Errorf("CNI network is not ready yet: %w: %w", err, errdefs.ErrUnavailable)})
		}
		return false, err
	}
	n.replace(before, next)
	cfg.logChange(ctx, before, next)
	n.configureTables(next)
	return true, nil
}

// replace publishes a configuration. WaitChecked continues to wait for the checks of the new configuration.
func (n *Network) replace(before, next *loaded) {
	next.checked = make(chan struct{})
	n.loaded.Store(next)
	before.markChecked()
}

// markChecked is called by Reload and Run only, which never run concurrently.
func (d *loaded) markChecked() {
	select {
	case <-d.checked:
	default:
		close(d.checked)
	}
}

// logChange logs the differences between two configurations.
func (cfg *Config) logChange(ctx context.Context, before, next *loaded) {
	log := logrus.WithContext(ctx)
	if next.err != nil && (before.err == nil || before.err.Error() != next.err.Error()) {
		log.WithError(next.err).Warn("no default network; pods cannot be attached")
	}
	for _, l := range next.all() {
		if old := before.byName(l.conf.Name); old != nil && bytes.Equal(old.raw, l.raw) {
			continue
		}
		if b := l.defaultBridge; b != nil {
			log.WithFields(logrus.Fields{"bridge": b.Bridge, "ranges": b.Ranges, "directories": cfg.ConfDirs}).Info(
				"no CNI network is configured; pods use the default bridge until a network is configured")
		} else {
			log.WithFields(logrus.Fields{"network": l.conf.Name, "file": l.file}).Info("network configuration loaded")
		}
	}
	logHandlers(ctx, before, next)
	for _, name := range cfg.Additional {
		if next.byName(name) == nil && (before.byName(name) != nil || !before.read) {
			log.WithFields(logrus.Fields{"network": name, "directories": cfg.ConfDirs}).Warn("additional network is not configured")
		}
	}
}

// prepare decides for all networks which work the daemon does in place of the plugins. It returns an error if a call of
// nft ended by the timeout, because the decision is not known then.
func (n *Network) prepare(ctx context.Context, d *loaded, timeout time.Duration) error {
	if n.cfg().NoBuiltin {
		return nil
	}
	var g errgroup.Group
	for _, l := range d.all() {
		// enableMasquerade replaces l.conf, so the other goroutine must not read it.
		name, plan := l.conf.Name, planHostPorts(l.conf)
		g.Go(func() error {
			err := enableHostPorts(ctx, l, plan, timeout)
			return logFallback(ctx, name, err, "the daemon cannot map host ports; the portmap plugin does, which is slower")
		})
		g.Go(func() error {
			err := n.enableMasquerade(ctx, l, timeout)
			return logFallback(ctx, name, err, "the daemon cannot masquerade; the plugins do, which is slower")
		})
	}
	return g.Wait()
}

// logFallback returns the error of a call that ended by a timeout. It logs every other error, with its consequence.
func logFallback(ctx context.Context, network string, err error, consequence string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil:
		return fmt.Errorf("network %q: %w", network, err)
	}
	logrus.WithContext(ctx).WithError(err).WithField("network", network).Warn(consequence)
	return nil
}

// equal reports whether two configurations are equal and the earlier one has been prepared completely.
func (d *loaded) equal(before *loaded) bool {
	if !before.read || d.err != nil || before.err != nil || len(d.additional) != len(before.additional) {
		return false
	}
	for _, l := range d.all() {
		old := before.byName(l.conf.Name)
		if old == nil || old.raw == nil || !bytes.Equal(old.raw, l.raw) || old.masqueradePending {
			return false
		}
	}
	return d.list.conf.Name == before.list.conf.Name && d.equalHandlers(before)
}

// all returns all networks, each once. The default network is the first.
func (d *loaded) all() []*list {
	var out []*list
	if d.list != nil {
		out = append(out, d.list)
	}
	for _, name := range slices.Sorted(maps.Keys(d.additional)) {
		out = append(out, d.additional[name])
	}
	for _, l := range d.handlerLists() {
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// byName returns a network, or nil if the network is not configured.
func (d *loaded) byName(name string) *list {
	if d.list != nil && d.list.conf.Name == name {
		return d.list
	}
	if l := d.additional[name]; l != nil {
		return l
	}
	for _, l := range d.handlerLists() {
		if l.conf.Name == name {
			return l
		}
	}
	return nil
}
