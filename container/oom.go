package container

import "github.com/criserver/criserver/internal/oomscore"

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
	if err := oomscore.Set(pid, 0); err != nil {
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
	adj, _ := m.settings.Load().Builder.OOMScoreAdj(want)
	return &adj
}
