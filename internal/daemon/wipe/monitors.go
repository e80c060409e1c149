package wipe

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/criserver/criserver/internal/proc"
)

// monitorExitTimeout is how long Run waits for all monitors of removed containers. A monitor exits on its own after
// its container.
const monitorExitTimeout = 5 * time.Second

// runningMonitors are the monitors that run before Run removes their containers. The cgroup of the monitors depends on
// the systemd unit of the daemon, and Run does not run in that unit. So Run finds the cgroup through the monitors.
type runningMonitors struct {
	tree    Cgroups
	cgroups []string
	exited  []<-chan struct{} // each is closed when a monitor exits
}

// findMonitors watches the monitors that run, and ignores the monitors that have exited. If it returns an error, the
// result contains the other monitors.
func findMonitors(tree Cgroups, watcher Watcher, monitors []proc.Ref) (*runningMonitors, error) {
	r := &runningMonitors{tree: tree}
	var errs []error
	for _, monitor := range monitors {
		exited := make(chan struct{})
		err := watcher.Watch(monitor, func(*os.File) { close(exited) })
		if errors.Is(err, proc.ErrGone) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		path, err := tree.ProcessCgroup(monitor.PID)
		if !monitor.Alive() {
			continue // the path may be that of another process
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.exited = append(r.exited, exited)
		if !slices.Contains(r.cgroups, path) {
			r.cgroups = append(r.cgroups, path)
		}
	}
	return r, errors.Join(errs...)
}

// removeCgroups waits until the monitors have exited, and removes their cgroups. It keeps a cgroup that is not empty,
// because the cgroup may have monitors of another daemon or of a container whose removal has failed.
func (r *runningMonitors) removeCgroups() error {
	timeout := time.NewTimer(monitorExitTimeout)
	defer timeout.Stop()
	for _, exited := range r.exited {
		select {
		case <-exited:
			continue
		case <-timeout.C:
		}
		break
	}
	var errs []error
	for _, path := range r.cgroups {
		errs = append(errs, r.tree.RemoveUnused(path))
	}
	return errors.Join(errs...)
}
