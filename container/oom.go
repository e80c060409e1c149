package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func oomFile(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/oom_score_adj" }

// oomScoreAdj returns ErrFailedPrecondition if the process has exited.
func oomScoreAdj(pid int) (int, error) {
	b, err := os.ReadFile(oomFile(pid))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
		return 0, fmt.Errorf("oom_score_adj: the first process has exited: %w", errdefs.ErrFailedPrecondition)
	case err != nil:
		return 0, fmt.Errorf("oom_score_adj: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// oomPasses limits the number of searches for processes that were forked during the
// previous search.
const oomPasses = 5

// setOOMScoreAdj changes the oom_score_adj of the first process, and of the processes
// with the same value, because they have inherited it. A process that the container
// itself has given another value keeps that value.
func (m *Manager) setOOMScoreAdj(s *Snapshot, adj int) error {
	from, err := oomScoreAdj(s.PID)
	if err != nil {
		return err
	}
	for range oomPasses {
		changed, err := m.changeOOMScoreAdj(s.CgroupPath, from, adj)
		if err != nil || !changed {
			return err
		}
	}
	return nil
}

// changeOOMScoreAdj makes one pass over the processes of a cgroup, and reports whether it
// changed a process.
func (m *Manager) changeOOMScoreAdj(cgroup string, from, to int) (changed bool, err error) {
	pids, err := m.cfg.Cgroups.Pids(cgroup)
	if err != nil || from == to {
		return false, err
	}
	open := make(map[int]*os.File)
	defer func() {
		for _, f := range open {
			_ = f.Close()
		}
	}()
	for _, pid := range pids {
		if f, err := os.OpenFile(oomFile(pid), os.O_RDWR, 0); err == nil {
			open[pid] = f
		}
	}
	// An open file refers to the same process even if the pid is reused. A process that is
	// still in the cgroup now is a process of the container.
	if pids, err = m.cfg.Cgroups.Pids(cgroup); err != nil {
		return false, err
	}
	for pid, f := range open {
		if !slices.Contains(pids, pid) {
			continue
		}
		replaced, err := replaceOOMScoreAdj(f, from, to)
		if err != nil {
			return changed, fmt.Errorf("oom_score_adj of process %d: %w", pid, err)
		}
		changed = changed || replaced
	}
	return changed, nil
}

// replaceOOMScoreAdj does nothing if the value is not from, or the process has exited.
func replaceOOMScoreAdj(f *os.File, from, to int) (bool, error) {
	b := make([]byte, 16)
	n, _ := f.ReadAt(b, 0)
	if now, parseErr := strconv.Atoi(strings.TrimSpace(string(b[:n]))); parseErr != nil || now != from {
		return false, nil
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(to)), 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// resetOOMScoreAdj sets the oom_score_adj of the first process of a new container to 0,
// if the OCI config has 0. crun 1.8 takes 0 for "not set", so that the container would
// inherit the value of the daemon.
func (c *container) resetOOMScoreAdj(pid int) {
	c.mu.Lock()
	p := c.process
	c.mu.Unlock()
	if p == nil || p.OOMScoreAdj == nil || *p.OOMScoreAdj != 0 {
		return
	}
	if err := os.WriteFile(oomFile(pid), []byte("0"), 0); err != nil {
		c.log().WithError(err).Warn("set oom_score_adj to 0")
	}
}

// execOOMScoreAdj returns the oom_score_adj for a command in the container, or nil if the
// runtime sets the right value. Runtimes set the value that the container was created
// with, and crun 1.8 does not set 0.
func (m *Manager) execOOMScoreAdj(c *container) *int {
	want := c.snap.Load().Resources.GetOomScoreAdj()
	if want != 0 && want == c.config.GetLinux().GetResources().GetOomScoreAdj() {
		return nil
	}
	adj, _ := m.cfg.Builder.OOMScoreAdj(want)
	return &adj
}
