package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
)

// A container whose files cannot be read is shown in an unknown state, or as ended
// when its process is gone. It can be stopped and removed. What is known of it comes
// from what can be read: parts of the files, the OCI config, the pid file of the
// runtime, the kernel.

// restoreUnread is for a directory whose record cannot be used.
func (m *Manager) restoreUnread(ctx context.Context, id string, cause error) error {
	rec, config, podConfig := m.salvage(id)
	c := newContainer(m.dir(id), rec, config, podConfig)
	if err := m.register(c); errors.Is(err, errdefs.ErrAlreadyExists) {
		m.registerUnnamed(c)
	}
	return m.resumeUnread(ctx, c, cause)
}

// registerUnnamed makes a container known whose name is another one's.
func (m *Manager) registerUnnamed(c *container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.containers[c.id] = c
}

// resumeUnread goes on with a container of which a file cannot be read.
func (m *Manager) resumeUnread(ctx context.Context, c *container, cause error) error {
	c.log().WithError(cause).Error("files of the container cannot be read: it is shown in an unknown state, and can be stopped and removed")
	f, err := readFacts(c.dir)
	if err != nil {
		f = m.witness(c)
		if err := keepCopy(filepath.Join(c.dir, stateFile)); err != nil {
			c.log().WithError(err).Warn("the state file is not kept")
		}
	} else if f.Init == (proc.Ref{}) {
		f.Init = m.findInit(c)
	}
	f.Unread = cause.Error()
	if err := c.change(func(now *facts) { *now = f }); err != nil {
		c.log().WithError(err).Warn("the container's unknown state is not on disk")
	}
	if f.End != nil {
		close(c.ended)
		err := m.killRest(ctx, c)
		c.told()
		return err
	}
	if f.Init == (proc.Ref{}) && (f.Monitor.Alive() || m.populated(c)) {
		c.mu.Lock()
		c.unwatched = true // until it is stopped; see killUnseen
		c.publish()
		c.mu.Unlock()
		return nil
	}
	m.watch(c)
	return nil
}

// keepCopy gives a file that cannot be read a second name, because the file is
// about to be replaced. It goes with the directory.
func keepCopy(file string) error {
	err := os.Link(file, file+".unread")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// witness finds the facts of a container without its state file.
func (m *Manager) witness(c *container) facts {
	f := facts{Version: recordVersion, Created: time.Now().UnixNano()}
	if info, err := os.Stat(c.dir); err == nil {
		f.Created = info.ModTime().UnixNano()
	}
	f.Monitor, _ = proc.Find(conmon.CommandLine(c.id)...)
	f.Init = m.findInit(c)
	return f
}

// findInit returns the first process of a container by the pid file. The process
// counts only if it is in the container's cgroup, as the pid can be another one's.
func (m *Manager) findInit(c *container) proc.Ref {
	if c.runtime.Guest {
		if g, err := m.readGuest(c.rec.PodID); err == nil {
			return g.Process
		}
		return proc.Ref{}
	}
	b, err := os.ReadFile(filepath.Join(c.dir, conmon.PIDFile))
	if err != nil {
		return proc.Ref{}
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return proc.Ref{}
	}
	ref, err := proc.Identify(pid)
	if err != nil {
		return proc.Ref{}
	}
	path, err := m.cfg.Cgroups.ProcessCgroup(pid)
	if err != nil || !ref.Alive() { // asked last: the cgroup was this process's
		return proc.Ref{}
	}
	own, ok := cgroupOf(c.id, path)
	if !ok || c.rec.CgroupPath != "" && c.rec.CgroupPath != own {
		return proc.Ref{}
	}
	c.rec.CgroupPath = own
	return ref
}

// cgroupOf returns the part of a cgroup path that is the cgroup of a container.
func cgroupOf(id, path string) (string, bool) {
	name := "/criserver-" + id
	before, after, found := strings.Cut(path+"/", name)
	switch {
	case found && strings.HasPrefix(after, "/"):
		return before + name, true
	case found && strings.HasPrefix(after, ".scope/"):
		return before + name + ".scope", true
	}
	return "", false
}

// populated says whether processes are in a container's cgroup, or may be.
func (m *Manager) populated(c *container) bool {
	if c.rec.CgroupPath == "" {
		return false
	}
	pids, err := m.cfg.Cgroups.Pids(c.rec.CgroupPath)
	return err != nil || len(pids) > 0
}

// isUnreadable reports whether a file of the container could not be read. It is then unknown
// whether the container was ever started.
func (c *container) isUnreadable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.facts.Unread != ""
}

// unseen says whether the first process of a container is not known.
func (c *container) unseen() bool {
	init, _ := c.refs()
	return init == (proc.Ref{}) && c.snap.Load().State == Unknown
}

// killUnseen ends a container whose first process is not known: all that is in its
// cgroup.
func (m *Manager) killUnseen(ctx context.Context, c *container) error {
	ctx, cancel := context.WithTimeout(ctx, deathTimeout)
	defer cancel()
	if c.runtime.Guest {
		if err := c.runtime.Kill(ctx, c.id, unix.SIGKILL); err != nil && c.runtime.Knows(c.id) {
			return err
		}
	} else if c.rec.CgroupPath != "" {
		if err := m.cfg.Cgroups.Kill(ctx, c.rec.CgroupPath); err != nil {
			return err
		}
	}
	m.awaitRecord(ctx, c)
	if !m.takeExit(c) {
		m.end(c, end{
			Finished: time.Now().UnixNano(), ExitCode: exitUnknown, Reason: ReasonError,
			Message: "the exit code is unknown: files of the container cannot be read",
		})
	}
	return nil
}

// awaitRecord gives the monitor, if it lives, a while to write the exit record.
func (m *Manager) awaitRecord(ctx context.Context, c *container) {
	if _, monitor := c.refs(); !monitor.Alive() {
		return
	}
	grace := time.NewTimer(statusGrace)
	defer grace.Stop()
	select {
	case <-c.ended:
	case <-ctx.Done():
	case <-grace.C:
	}
}
