// Package wipe removes all pods and containers, and on request all images, while no daemon serves. It calls the
// managers of a daemon that has restored its state, which package daemon builds.
package wipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/sandbox"
)

// Options selects the objects that Run deletes.
type Options struct {
	Images bool // also images and their layers
	Force  bool // stop containers that run
	// Confirm is called with everything that Run would delete. If it returns false, Run
	// deletes nothing.
	Confirm func(Plan) (bool, error)
}

// ErrContainersRun means that Run deletes nothing because containers run.
var ErrContainersRun = errors.New("containers run, or may run")

// Managers are the managers whose objects Run deletes. They have restored their state.
type Managers struct {
	Pods interface {
		List() []*sandbox.Pod
		Remove(ctx context.Context, id string) error
		RemoveNetworks(ctx context.Context) error
	}
	Containers interface {
		List() []*container.Snapshot
		Stop(ctx context.Context, id string, timeout time.Duration) error
		Remove(ctx context.Context, id string) error
		Monitors() []proc.Ref
	}
	Images interface {
		List() []image.Image
		Remove(ctx context.Context, ref string) error
		EmptyTrash(ctx context.Context) error
	}
	// Start starts the managers of pods and containers, after the confirmation. The returned function ends them and
	// returns their error. The manager of images does not run, because it would empty the trash at the same time as Run.
	Start   func() (end func() error)
	Cgroups Cgroups
	Watcher Watcher
}

// Cgroups are the cgroups of the host.
type Cgroups interface {
	// ProcessCgroup returns the path of the cgroup of a process.
	ProcessCgroup(pid int) (string, error)
	// RemoveUnused removes a cgroup unless it has processes.
	RemoveUnused(path string) error
}

// Watcher waits for the ends of processes.
type Watcher interface {
	// Watch calls exited when a process has ended. It returns proc.ErrGone if the process has ended already.
	Watch(r proc.Ref, exited func(pidfd *os.File)) error
}

const (
	// stopTimeout is the time between the stop signal and the kill of a container.
	stopTimeout = 10 * time.Second
	// parallel is the number of pods, containers and images that are removed in parallel.
	parallel = 8
)

// Run removes all pods and containers with their writable layers, and on request all images. It removes each object as
// the daemon does on a request of the kubelet, so network plugins and runtimes release their resources, and nothing is
// deleted while it is in use. Run also deletes the default bridge and the nftables tables that no remaining pod uses,
// and the cgroups of the monitors. Run continues after an error, and returns all errors.
//
// Errors: ErrContainersRun if a container runs, unless Force is set.
func Run(ctx context.Context, m Managers, opts Options) error {
	plan := newPlan(m, opts.Images)
	if confirmed, err := opts.Confirm(plan); err != nil || !confirmed {
		return err
	}
	if n := plan.Running(); n > 0 && !opts.Force {
		return fmt.Errorf("%d of %d %w", n, len(plan.Containers), ErrContainersRun)
	}
	monitors, findErr := findMonitors(m.Cgroups, m.Watcher, m.Containers.Monitors())
	end := m.Start()
	err := errors.Join(remove(ctx, m, plan), end())
	err = errors.Join(err, m.Pods.RemoveNetworks(ctx), m.Images.EmptyTrash(ctx))
	return errors.Join(err, findErr, monitors.removeCgroups())
}

// remove removes the objects of a plan: containers before their pods, and images last.
func remove(ctx context.Context, m Managers, plan Plan) error {
	stop := func(c Container) error { return m.Containers.Stop(ctx, c.ID, stopTimeout) }
	removePod := func(pod Pod) error { return m.Pods.Remove(ctx, pod.ID) }
	removeContainer := func(c Container) error { return m.Containers.Remove(ctx, c.ID) }
	removeImage := func(img Image) error { return m.Images.Remove(ctx, img.ID) }
	return errors.Join(
		forEach(plan.Containers, stop),
		forEach(plan.Pods, removePod),
		forEach(plan.Containers, removeContainer), // those whose pods do not exist
		forEach(plan.Images, removeImage),
	)
}

// forEach calls fn for each element, several at a time, and joins the errors.
func forEach[T any](list []T, fn func(T) error) error {
	var mu sync.Mutex // guards errs
	var errs []error
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, x := range list {
		g.Go(func() error {
			if err := fn(x); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
	}
	_ = g.Wait() // the functions return no errors
	return errors.Join(errs...)
}
