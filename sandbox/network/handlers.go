package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
)

// handlerNetwork is the default network of the pods of a runtime handler. Either list or err is set.
type handlerNetwork struct {
	list *list
	err  error // the reason why there is no network
}

// HandlerNetwork describes the default network of the pods of a runtime handler.
type HandlerNetwork struct {
	Network string `json:"network,omitempty"`
	Error   string `json:"error,omitempty"` // the reason why pods cannot be attached
}

// HandlerNetworks returns the networks of the runtime handlers with a default network of their own, by handler.
func (n *Network) HandlerNetworks() map[string]HandlerNetwork {
	out := make(map[string]HandlerNetwork, len(n.cfg().HandlerConfDirs))
	for handler := range n.cfg().HandlerConfDirs {
		var h HandlerNetwork
		if l := n.loaded.Load().defaultOf(handler); l != nil {
			h.Network = l.conf.Name
		}
		if err := n.StatusOf(handler); err != nil {
			h.Error = err.Error()
		}
		out[handler] = h
	}
	return out
}

// StatusOf returns nil if pods of a runtime handler can be attached to their default network, and otherwise an error as
// Status does.
func (n *Network) StatusOf(handler string) error {
	l := n.loaded.Load()
	h, ok := l.handlers[handler]
	switch {
	case !ok:
		if n.cfg().HandlerConfDirs[handler] != nil && l.err != nil { // nothing is loaded yet
			return l.err
		}
		return n.Status()
	case h.err != nil:
		return h.err
	}
	if err := n.findPlugins(h.list); err != nil {
		return err
	}
	a := n.answer.Load()
	if a == nil || a.conf != l {
		return notAnswered(h.list)
	}
	return a.handlers[handler]
}

// notAnswered returns the error for a network whose plugins have not answered STATUS yet.
func notAnswered(l *list) error {
	return fmt.Errorf("CNI network %q is not ready yet: its plugins have not answered STATUS: %w", l.conf.Name, errdefs.ErrUnavailable)
}

// defaultOf returns the default network of a runtime handler, or nil if there is none.
func (d *loaded) defaultOf(handler string) *list {
	if h, ok := d.handlers[handler]; ok {
		return h.list
	}
	return d.list
}

// handlerLists returns the networks of the runtime handlers, each once.
func (d *loaded) handlerLists() []*list {
	var out []*list
	for _, handler := range slices.Sorted(maps.Keys(d.handlers)) {
		if l := d.handlers[handler].list; l != nil && !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// loadHandlers reads the default networks of the runtime handlers: the first valid network in the directories of each.
// Tables of nftables and the leases of plugins belong to the name of a network, so two networks with the same name must
// have the same configuration.
func (cfg *Config) loadHandlers(d *loaded) {
	d.handlers = make(map[string]handlerNetwork, len(cfg.HandlerConfDirs))
	for _, handler := range slices.Sorted(maps.Keys(cfg.HandlerConfDirs)) {
		dirs := cfg.HandlerConfDirs[handler]
		lists, _, errs := readDirs(dirs)
		if len(lists) == 0 {
			err := fmt.Errorf("no CNI network configuration for runtime handler %q in %s: put a .conflist file there: %w",
				handler, strings.Join(dirs, ", "), errdefs.ErrUnavailable)
			d.handlers[handler] = handlerNetwork{err: errors.Join(append([]error{err}, errs...)...)}
			continue
		}
		l := lists[0]
		if other := d.byName(l.conf.Name); other != nil {
			if !bytes.Equal(other.raw, l.raw) {
				d.handlers[handler] = handlerNetwork{err: fmt.Errorf("CNI network %q of runtime handler %q (%s) differs from the network of the same name in %s: rename one of them: %w",
					l.conf.Name, handler, l.file, other.file, errdefs.ErrUnavailable)}
				continue
			}
			l = other
		}
		d.handlers[handler] = handlerNetwork{list: l}
	}
}

// equalHandlers reports whether the networks of the runtime handlers are equal. The caller compares the lists.
func (d *loaded) equalHandlers(before *loaded) bool {
	return maps.EqualFunc(d.handlers, before.handlers, func(a, b handlerNetwork) bool {
		switch {
		case a.list != nil && b.list != nil:
			return a.list.conf.Name == b.list.conf.Name
		case a.err != nil && b.err != nil:
			return a.err.Error() == b.err.Error()
		}
		return false
	})
}

// logHandlers logs the handlers that have lost their network, and those that have never had one.
func logHandlers(ctx context.Context, before, next *loaded) {
	for _, handler := range slices.Sorted(maps.Keys(next.handlers)) {
		err, old := next.handlers[handler].err, before.handlers[handler].err
		if err != nil && (old == nil || old.Error() != err.Error()) {
			logrus.WithContext(ctx).WithError(err).WithField("runtime", handler).Warn("no network of the runtime handler; its pods cannot be attached")
		}
	}
}

// askHandlers asks the plugins of the networks of the runtime handlers for their status.
func (n *Network) askHandlers(ctx context.Context, d *loaded, timeout time.Duration) map[string]error {
	answers := make(map[*list]error)
	for _, l := range d.handlerLists() {
		err := n.findPlugins(l)
		if err == nil {
			err = n.askStatus(ctx, l, timeout)
		}
		answers[l] = err
	}
	out := make(map[string]error)
	for handler, h := range d.handlers {
		if h.list != nil {
			out[handler] = answers[h.list]
		}
	}
	return out
}

// watchedDirs returns all directories with CNI configurations.
func (n *Network) watchedDirs() []string {
	dirs := slices.Clone(n.cfg().ConfDirs)
	for _, handler := range slices.Sorted(maps.Keys(n.cfg().HandlerConfDirs)) {
		for _, dir := range n.cfg().HandlerConfDirs[handler] {
			if !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}
