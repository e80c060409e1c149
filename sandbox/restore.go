package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/criserver/criserver/internal/boot"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podspec"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

// Restore rebuilds the view of all pods from their records and the kernel, and
// removes what belongs to none. A pod whose record cannot be read is shown as not
// ready: see unread.go. Restore calls no plugin and no nft, because they can
// be slow: Run loads the network configuration and takes pods down.
func (m *Manager) Restore(ctx context.Context) error {
	if err := m.prepare(); err != nil {
		return fmt.Errorf("restore pod sandboxes: %w", err)
	}
	all, err := listIDs(m.dirs.pods())
	if err != nil {
		return fmt.Errorf("restore pod sandboxes: %w", err)
	}
	var mu sync.Mutex // guards entries and owners
	entries := make(map[string]*entry)
	var owners []string // of pins and attachments
	var g errgroup.Group
	g.SetLimit(4 * runtime.GOMAXPROCS(0))
	for _, id := range all {
		g.Go(func() error {
			e, owned := m.restore(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			if e != nil {
				entries[id] = e
			}
			if owned {
				owners = append(owners, id)
			}
			return nil
		})
	}
	_ = g.Wait() // nothing in it fails
	m.exchange(func(view map[string]*entry) {
		for id, e := range entries {
			view[id] = e
		}
	})
	m.resume(entries)
	m.sweepPins(ctx, owners)
	m.adoptNetworks(owners, entries)
	return nil
}

func (m *Manager) prepare() (err error) {
	if m.boot, err = boot.ID(); err != nil {
		return err
	}
	for dir, perm := range map[string]os.FileMode{m.dirs.pods(): 0o711, m.dirs.pins(): 0o700} {
		if err := os.MkdirAll(dir, perm); err != nil {
			return err
		}
	}
	return nil
}

// restore returns the pod of a directory, and whether the directory has an
// owner.
func (m *Manager) restore(ctx context.Context, id string) (e *entry, owned bool) {
	log := logrus.WithContext(ctx).WithField("pod", id)
	rec, config, err := m.dirs.read(id)
	if errors.Is(err, fs.ErrNotExist) {
		// Begun and not recorded, or removed but for its directory.
		if err := m.removeUnrecorded(id); err != nil {
			log.WithError(err).Warn("directory without a record could not be removed")
		}
		return nil, false
	}
	if err != nil {
		return m.recoverUnreadable(ctx, id, err), true
	}
	m.keepLabels(rec)
	spec, err := podspec.ParseStored(config, rec.Handler)
	if err != nil {
		log.WithError(err).Warn("stored config of the pod sandbox breaks rules of this version of the daemon; the pod sandbox is kept")
	}
	e = newEntry(rec, spec)
	switch {
	case rec.BootID != m.boot:
		// Nothing of it is left but leases and files. Its pids are others' now.
		e.hidden, rec.Pause = true, nil
	case rec.ReadyAt.IsZero() && rec.StoppedAt.IsZero():
		e.hidden = true
	case rec.ready():
		rec.Lost = m.missing(e)
	}
	if rec.Lost != "" {
		log.WithField("error", rec.Lost).Warn("pod sandbox is no longer ready")
	}
	if rec.BootID == m.boot && m.cfg.CgroupDriver == Cgroupfs {
		err := m.cfg.Cgroups.Make(rec.CgroupParent)
		if e.cgroup = err == nil; err != nil {
			log.WithError(err).Warn("cgroup of the pod sandbox")
		}
	}
	e.inPlugins = !e.hidden && !rec.released()
	e.pod = m.snapshot(e)
	return e, true
}

// missing says what a ready pod has lost while no daemon was there to see.
func (m *Manager) missing(e *entry) string {
	ns := m.namespaces(e)
	for _, path := range []string{ns.Net, ns.IPC, ns.UTS, ns.PID, ns.User} {
		if path != "" && !namespace.Pinned(path) {
			return "its namespace " + path + " is gone"
		}
	}
	if e.spec.Namespaces.SharedPID && (e.rec.Pause == nil || !e.rec.Pause.Alive()) {
		return pauseEnded
	}
	return ""
}

// resume queues what was to end, and watches what is to stay.
func (m *Manager) resume(entries map[string]*entry) {
	for id, e := range entries {
		switch {
		case e.hidden, !e.rec.StoppedAt.IsZero() && !e.rec.released():
			m.retries.add(id, 0)
		case e.rec.ready():
			m.watchPause(e.rec)
		}
	}
}

func (m *Manager) removeUnrecorded(id string) error {
	dir := m.dirs.pod(id)
	if err := namespace.Unmount(filepath.Join(dir, shmDir)); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// sweepPins releases namespaces that belong to no pod.
func (m *Manager) sweepPins(ctx context.Context, owners []string) {
	pinned, err := listIDs(m.dirs.pins())
	if err != nil {
		logrus.WithContext(ctx).WithError(err).Warn("namespaces without a pod could not be looked for")
	}
	for _, id := range pinned {
		if slices.Contains(owners, id) {
			continue
		}
		log := logrus.WithContext(ctx).WithField("pod", id)
		if err := namespace.UnpinAll(m.dirs.pin(id)); err != nil {
			log.WithError(err).Warn("namespaces without a pod could not be released")
			continue
		}
		log.Info("namespaces without a pod released")
	}
}

// adoptNetworks has the collection of remains spare what belongs to pods. Of
// those whose record cannot be read, the interfaces are seen in their network
// namespace.
func (m *Manager) adoptNetworks(owners []string, entries map[string]*entry) {
	for _, id := range owners {
		e := entries[id]
		if e.unreadable {
			m.net.AdoptUnknown(id, m.seenInterfaces(id)...)
		}
		if !e.rec.DetachedAt.IsZero() {
			continue
		}
		m.net.Adopt(id, e.rec.attachments()...)
		if e.rec.Plan != nil {
			m.ports.reserveUnchecked(id, e.spec.Name, e.spec.PortMappings)
			first := network.Default(e.rec.Plan)
			first.Result = e.rec.CNIResult
			m.net.AdoptPorts(id, first, e.spec.PortMappings)
		}
	}
}

func (m *Manager) seenInterfaces(id string) []string {
	names := []string{network.IfName}
	namespace.Visit(func(links func(string) ([]namespace.Link, error)) {
		seen, err := links(filepath.Join(m.dirs.pin(id), namespace.Net))
		if err != nil {
			return // it is gone, and with it all but leases
		}
		for _, l := range seen {
			names = append(names, l.Name)
		}
	})
	return names
}
