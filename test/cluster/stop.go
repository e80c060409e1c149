package cluster

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
)

// Stop stops all processes of the cluster and removes its files.
func (c *Cluster) Stop() error { return errors.Join(c.stop(), os.RemoveAll(c.Dir)) }

// stop stops all processes of the cluster and removes its cgroups.
func (c *Cluster) stop() error {
	var errs []error
	if c.forwarder != nil {
		errs = append(errs, c.forwarder.Close())
	}
	if err := c.StopRegistry(); err != nil && !errors.Is(err, net.ErrClosed) {
		errs = append(errs, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range slices.Concat(c.extra, c.Nodes) {
		if n.Machine != nil {
			n.Machine.Kill()
		}
	}
	if c.Control != nil {
		c.Control.Kill()
	}
	if c.scope != nil {
		c.scope.stop()
	}
	return errors.Join(append(errs, removeCgroups(cgroupOf(c.Name)), removeTop())...)
}

// removeTop removes the parent of the cgroups of all clusters if no cluster exists.
func removeTop() error {
	dirs, err := findCgroups(cgroupTop)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if filepath.Base(dir) != cgroupTop {
			return nil // another cluster
		}
	}
	return removeCgroups(cgroupTop)
}
