package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
)

// A container with a file that cannot be read has the state Unknown, or Exited when its
// first process has exited. It can be stopped and removed. The manager takes missing
// values from the readable parts of the files, the OCI config, the pid file of the
// runtime and the kernel.

// recoverUnreadableRecord recovers a container whose record cannot be used.
func (m *Manager) recoverUnreadableRecord(ctx context.Context, id string, cause error) error {
	rec, config, podConfig := m.salvager().Salvage(m.dir(id))
	c := newContainer(m.dir(id), rec, config, podConfig)
	if err := m.register(c); errors.Is(err, errdefs.ErrAlreadyExists) {
		m.registerWithoutName(c)
	}
	return m.resumeUnreadable(ctx, c, cause)
}

// registerWithoutName registers a container whose name belongs to another container.
func (m *Manager) registerWithoutName(c *container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.containers[c.id] = c
}

// resumeUnreadable continues with a container that has a file that cannot be read.
func (m *Manager) resumeUnreadable(ctx context.Context, c *container, cause error) error {
	c.log().WithError(cause).Error("files of the container cannot be read: its state is unknown, and it can be stopped and removed")
	s, err := record.ReadStatus(c.dir)
	if err != nil {
		s = m.reconstructStatus(c)
		if err := record.PreserveStatus(c.dir); err != nil {
			c.log().WithError(err).Warn("preserve the unreadable state file")
		}
	} else if s.Init == (proc.Ref{}) {
		s.Init = m.findInit(c)
	}
	s.ReadError = cause.Error()
	if err := c.change(func(now *record.Status) { *now = s }); err != nil {
		c.log().WithError(err).Warn("write the unknown state of the container to its state file")
	}
	if s.Exit != nil {
		close(c.exited)
		err := m.killRemaining(ctx, c)
		c.markExitNotified()
		return err
	}
	if s.Init == (proc.Ref{}) && (s.Monitor.Alive() || m.hasProcesses(c)) {
		c.mu.Lock()
		c.unwatched = true // until a stop: see killWithoutInit
		c.publish()
		c.mu.Unlock()
		return nil
	}
	m.watch(c)
	return nil
}

// salvager returns how records are made from the readable parts of files.
func (m *Manager) salvager() record.Salvager {
	return record.Salvager{RunDir: m.cfg.RunDir, Boot: m.boot, FindRuntime: m.findRuntime}
}

// reconstructStatus finds the status of a container without its state file.
func (m *Manager) reconstructStatus(c *container) record.Status {
	s := record.Status{Version: record.Version, Created: time.Now().UnixNano()}
	if info, err := os.Stat(c.dir); err == nil {
		s.Created = info.ModTime().UnixNano()
	}
	s.Monitor, _ = proc.Find(conmon.CommandLine(c.id)...)
	s.Init = m.findInit(c)
	return s
}

// findInit returns the first process of a container from the pid file. The process must
// be in the cgroup of the container, because the pid can belong to another process now.
func (m *Manager) findInit(c *container) proc.Ref {
	if c.runtime.Guest {
		return m.guests.Process(c.rec.PodID)
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
	// If the process still runs after its cgroup was read, the pid was not reused before.
	if err != nil || !ref.Alive() {
		return proc.Ref{}
	}
	cgroup, ok := record.Cgroup(c.id, path)
	if !ok || c.rec.CgroupPath != "" && c.rec.CgroupPath != cgroup {
		return proc.Ref{}
	}
	c.rec.CgroupPath = cgroup
	return ref
}

// hasProcesses reports whether the cgroup of a container has processes, or may have.
func (m *Manager) hasProcesses(c *container) bool {
	if c.rec.CgroupPath == "" {
		return false
	}
	pids, err := m.cfg.Cgroups.Pids(c.rec.CgroupPath)
	return err != nil || len(pids) > 0
}

// isUnreadable reports whether a file of the container could not be read. It is then
// unknown whether the container was ever started.
func (c *container) isUnreadable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status.ReadError != ""
}

// initUnknown reports whether the first process of a container is unknown.
func (c *container) initUnknown() bool {
	init, _ := c.refs()
	return init == (proc.Ref{}) && c.snap.Load().State == Unknown
}

// killWithoutInit kills all processes in the cgroup of a container whose first process
// is unknown.
func (m *Manager) killWithoutInit(ctx context.Context, c *container) error {
	ctx, cancel := context.WithTimeout(ctx, deathTimeout)
	defer cancel()
	// If the container was never started, it may have no process that can be killed. The record that
	// says so may be unreadable.
	_ = c.abandon()
	if c.runtime.Guest {
		if err := c.runtime.Kill(ctx, c.id, unix.SIGKILL); err != nil && c.runtime.HasContainer(c.id) {
			return err
		}
	} else if c.rec.CgroupPath != "" {
		if err := m.cfg.Cgroups.Kill(ctx, c.rec.CgroupPath); err != nil {
			return err
		}
	}
	m.awaitExitRecord(ctx, c)
	if !m.takeExit(c) {
		m.recordExit(c, record.Exit{
			Finished: time.Now().UnixNano(), ExitCode: exitUnknown, Reason: ReasonError,
			Message: "the exit code is unknown: files of the container cannot be read",
		}, ExitFacts{})
	}
	return nil
}

// unreadableGrace is how long a running monitor may take to write the exit record of a container whose processes were
// killed.
const unreadableGrace = 10 * time.Second

// awaitExitRecord waits some time until a running monitor has written the exit record.
func (m *Manager) awaitExitRecord(ctx context.Context, c *container) {
	if _, monitor := c.refs(); !monitor.Alive() {
		return
	}
	grace := time.NewTimer(unreadableGrace)
	defer grace.Stop()
	select {
	case <-c.exited:
	case <-ctx.Done():
	case <-grace.C:
	}
}
