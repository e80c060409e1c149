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

func oomScoreAdj(pid int) (int, error) {
	b, err := os.ReadFile(oomFile(pid))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
		return 0, fmt.Errorf("oom_score_adj: the first process is gone: %w", errdefs.ErrFailedPrecondition)
	case err != nil:
		return 0, fmt.Errorf("oom_score_adj: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// oomPasses bounds the looking for processes that were forked meanwhile.
const oomPasses = 5

// setOOMScoreAdj changes a container's first process and those that have what it
// has, as they inherited it. A process that was given another value by who runs
// in the container keeps it.
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

// changeOOMScoreAdj makes one pass and says whether it changed anything.
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
	// What is open now stays the same process; listed once more, it is one of
	// this container and not a stranger to whom the number has passed.
	if pids, err = m.cfg.Cgroups.Pids(cgroup); err != nil {
		return false, err
	}
	for pid, f := range open {
		if !slices.Contains(pids, pid) {
			continue
		}
		did, err := replaceOOMScoreAdj(f, from, to)
		if err != nil {
			return changed, fmt.Errorf("oom_score_adj of process %d: %w", pid, err)
		}
		changed = changed || did
	}
	return changed, nil
}

func replaceOOMScoreAdj(f *os.File, from, to int) (bool, error) {
	b := make([]byte, 16)
	n, _ := f.ReadAt(b, 0)
	if now, parseErr := strconv.Atoi(strings.TrimSpace(string(b[:n]))); parseErr != nil || now != from {
		return false, nil // what cannot be read is gone
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(to)), 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// resetOOMScoreAdj gives the first process of a new container the oom_score_adj
// 0, if the config says 0. crun 1.8 takes 0 for "not set", and the container
// would have the value of the daemon.
func (c *container) resetOOMScoreAdj(pid int) {
	c.mu.Lock()
	p := c.process
	c.mu.Unlock()
	if p == nil || p.OOMScoreAdj == nil || *p.OOMScoreAdj != 0 {
		return
	}
	if err := os.WriteFile(oomFile(pid), []byte("0"), 0); err != nil {
		c.log().WithError(err).Warn("oom_score_adj could not be set to 0")
	}
}

// execOOMScoreAdj returns the oom_score_adj for commands that are run in the
// container, or nil where the runtime sets the right one: runtimes set the value
// of the creation, and crun 1.8 does not set 0.
func (m *Manager) execOOMScoreAdj(c *container) *int {
	want := c.snap.Load().Resources.GetOomScoreAdj()
	if want != 0 && want == c.config.GetLinux().GetResources().GetOomScoreAdj() {
		return nil
	}
	adj, _ := m.cfg.Builder.OOMScoreAdj(want)
	return &adj
}
