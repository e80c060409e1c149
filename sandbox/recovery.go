package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/criserver/criserver/internal/boot"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podfiles"
	"github.com/criserver/criserver/sandbox/podspec"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

// Recover rebuilds the view of all pods after a restart of the daemon, from the records and the
// kernel, and removes namespaces and directories that belong to no pod. A pod whose record cannot
// be read is shown as not ready; see unreadable.go. Recover calls neither CNI plugins nor nft,
// because they can be slow: Run loads the network configuration and tears down pods.
func (m *Manager) Recover(ctx context.Context) error {
	if err := m.prepare(); err != nil {
		return fmt.Errorf("recover pod sandboxes: %w", err)
	}
	if err := m.net.RemoveTemporaryFiles(); err != nil {
		logrus.WithContext(ctx).WithError(err).Warn("failed to remove temporary files of the network")
	}
	all, err := listIDs(m.dirs.pods())
	if err != nil {
		return fmt.Errorf("recover pod sandboxes: %w", err)
	}
	var mu sync.Mutex // guards entries
	entries := make(map[string]*entry)
	var g errgroup.Group
	g.SetLimit(4 * runtime.GOMAXPROCS(0))
	for _, id := range all {
		g.Go(func() error {
			if e := m.recoverPod(ctx, id); e != nil {
				mu.Lock()
				defer mu.Unlock()
				entries[id] = e
			}
			return nil
		})
	}
	_ = g.Wait() // the functions return no errors
	m.exchange(func(view map[string]*entry) {
		for id, e := range entries {
			view[id] = e
		}
	})
	m.continueOperations(entries)
	m.unpinOrphans(ctx, entries)
	m.recoverNetworks(entries)
	return nil
}

// prepare reads the boot id and creates the directories of the Manager.
func (m *Manager) prepare() (err error) {
	if m.boot, err = boot.ID(); err != nil {
		return err
	}
	for dir, perm := range map[string]os.FileMode{m.dirs.pods(): 0o711, m.dirs.pins(): 0o700} {
		if err := os.MkdirAll(dir, perm); err != nil {
			return err
		}
	}
	return m.prepareNames()
}

// recoverPod returns the entry of a pod, or nil for a directory without a record.
func (m *Manager) recoverPod(ctx context.Context, id string) *entry {
	log := logrus.WithContext(ctx).WithField("pod", id)
	rec, config, err := m.dirs.read(id)
	if errors.Is(err, fs.ErrNotExist) {
		// The daemon died before it wrote the record, or after it removed the record and before it removed the directory.
		if err := m.removeUnrecorded(id); err != nil {
			log.WithError(err).Warn("cannot remove a pod directory without a record")
		}
		return nil
	}
	if err != nil {
		return m.recoverUnreadable(ctx, id, err)
	}
	spec, err := podspec.ParseStored(config, rec.Handler)
	if err != nil {
		// An earlier version of the daemon accepted the request. The pod keeps running.
		log.WithError(err).Warn("the request of the pod sandbox breaks rules of this version of the daemon; the pod sandbox is kept")
	}
	m.keepLabels(rec)
	e := newEntry(rec, spec)
	switch {
	case rec.BootID != m.boot:
		// Only IP leases and files remain of a pod of an earlier boot. Its process ids may belong to other processes now.
		e.hidden, rec.Pause = true, nil
	case rec.ReadyAt.IsZero() && rec.StoppedAt.IsZero():
		e.hidden = true
	case rec.ready():
		rec.LostReason = m.lostReason(e)
		m.restoreName(ctx, e)
	}
	if rec.LostReason != "" {
		log.WithField("reason", rec.LostReason).Warn("pod sandbox is no longer ready")
	}
	if rec.BootID == m.boot && m.cfg.CgroupDriver == Cgroupfs {
		err := m.cfg.Cgroups.Make(rec.CgroupParent)
		if e.cgroup = err == nil; err != nil {
			log.WithError(err).Warn("cannot hold the cgroup of the pod sandbox")
		}
	}
	e.inPlugins = !e.hidden && !rec.released()
	e.pod = m.snapshot(e)
	return e
}

// lostReason returns the reason why a pod that was ready is no longer ready, or "": a namespace or the pause may be
// missing since an earlier daemon exited.
func (m *Manager) lostReason(e *entry) string {
	ns := m.namespaces(e)
	for _, path := range []string{ns.Net, ns.IPC, ns.UTS, ns.PID, ns.User} {
		if path != "" && !namespace.Pinned(path) {
			return "its namespace " + path + " no longer exists"
		}
	}
	if e.spec.Namespaces.SharedPID && (e.rec.Pause == nil || !e.rec.Pause.Alive()) {
		return pauseEnded
	}
	return ""
}

// continueOperations schedules the teardown of leftovers and of stopped pods, and watches the pauses of ready pods.
func (m *Manager) continueOperations(entries map[string]*entry) {
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
	if err := namespace.Unmount(filepath.Join(dir, podfiles.Shm)); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// unpinOrphans unpins namespaces that belong to no pod.
func (m *Manager) unpinOrphans(ctx context.Context, entries map[string]*entry) {
	pinned, err := listIDs(m.dirs.pins())
	if err != nil {
		logrus.WithContext(ctx).WithError(err).Warn("cannot list namespaces without a pod")
	}
	for _, id := range pinned {
		if entries[id] != nil {
			continue
		}
		log := logrus.WithContext(ctx).WithField("pod", id)
		if err := errors.Join(m.removeName(id, m.newName(id)), namespace.UnpinAll(m.dirs.pin(id))); err != nil {
			log.WithError(err).Warn("cannot unpin namespaces without a pod")
			continue
		}
		log.Info("unpinned namespaces without a pod")
	}
}

// recoverNetworks registers the attachments and host ports of pods with the network, so that CNI GC does not delete
// them. If the record of a pod cannot be read, the interfaces are read from its network namespace.
func (m *Manager) recoverNetworks(entries map[string]*entry) {
	for id, e := range entries {
		if e.unreadable {
			m.net.RestoreUnreadable(id, m.interfacesOf(id)...)
		}
		if !e.rec.DetachedAt.IsZero() {
			continue
		}
		m.net.RestoreAttachments(id, e.rec.attachments()...)
		if e.rec.Plan != nil {
			ports := e.rec.hostPorts(e.spec)
			m.ports.reserveUnchecked(id, e.spec.Name, ports)
			first := network.Default(e.rec.Plan)
			first.Result = e.rec.CNIResult
			m.net.RestoreHostPorts(id, first, ports)
		}
	}
}

// interfacesOf returns eth0 and the names of the interfaces in the network namespace of a pod.
func (m *Manager) interfacesOf(id string) []string {
	names := []string{network.IfName}
	namespace.Visit(func(links func(string) ([]namespace.Link, error)) {
		found, err := links(m.dirs.netns(id))
		if err != nil {
			return // without the namespace, only IP leases remain
		}
		for _, l := range found {
			names = append(names, l.Name)
		}
	})
	return names
}
