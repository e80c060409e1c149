package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/container"
)

// WipeOptions selects the objects that Wipe deletes.
type WipeOptions struct {
	Images bool // also images and their layers
	Force  bool // stop containers that run
	// Confirm is called with everything that Wipe would delete. If it returns false, Wipe
	// deletes nothing.
	Confirm func(WipePlan) (bool, error)
}

// WipePlan lists pods, containers and images.
type WipePlan struct {
	Pods       []WipePod       `json:"pods"`
	Containers []WipeContainer `json:"containers"`
	Images     []WipeImage     `json:"images"`
}

// WipePod is a pod in a WipePlan.
type WipePod struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Ready     bool   `json:"ready"`
}

// WipeContainer is a container in a WipePlan.
type WipeContainer struct {
	ID    string `json:"id"`
	Pod   string `json:"pod"` // the ID of the pod
	Name  string `json:"name"`
	State string `json:"state"` // created, running, exited or unknown
}

// WipeImage is an image in a WipePlan.
type WipeImage struct {
	ID   string   `json:"id"`
	Tags []string `json:"tags"`
}

// ErrContainersRun means that Wipe deletes nothing because containers run.
var ErrContainersRun = errors.New("containers run, or may run")

const (
	// wipeStopTimeout is the time between the stop signal and the kill of a container.
	wipeStopTimeout = 10 * time.Second
	// wipeParallel is the number of pods, containers and images that are removed in parallel.
	wipeParallel = 8
)

// Wipe removes all pods and containers with their writable layers, and on request all images,
// while no daemon runs. It removes each object as the daemon does on a request of the kubelet,
// so network plugins and runtimes release their resources, and nothing is deleted while it is
// in use. Wipe also deletes the default bridge and the nftables tables that no remaining pod uses,
// and the cgroups of the monitors. Wipe continues after an error, and returns all errors.
//
// Errors: ErrContainersRun if a container runs, unless Force is set.
func Wipe(ctx context.Context, settings config.Config, opts WipeOptions) (err error) {
	locks, err := lockDirs(settings.Root, settings.RunDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locks.release()) }()
	settings.NRI.Enable = false // plugins must not prevent the removal
	settings.Streaming = config.Default().Streaming
	p, err := build(ctx, Config{Settings: settings})
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	base, managers := newStage(ctx, fail), newStage(ctx, fail)
	base.run(p.watcher.Run)
	base.run(p.spawner.Run)
	defer func() { err = errors.Join(err, base.end()) }()
	if err := p.restore(ctx); err != nil {
		return err
	}
	plan := p.wipePlan(opts.Images)
	if confirmed, err := opts.Confirm(plan); err != nil || !confirmed {
		return err
	}
	if n := plan.Running(); n > 0 && !opts.Force {
		return fmt.Errorf("%d of %d %w", n, len(plan.Containers), ErrContainersRun)
	}
	monitors, findErr := findMonitors(p.host.cgroups, p.watcher, p.containers.Monitors())
	managers.run(p.pods.Run)
	managers.run(p.containers.Run)
	// images.Run would empty the trash at the same time as wipe.
	err = errors.Join(p.wipe(ctx, plan), managers.end())
	err = errors.Join(err, p.pods.RemoveNetworks(ctx), p.images.EmptyTrash(ctx))
	return errors.Join(err, findErr, monitors.removeCgroups())
}

// wipePlan returns all pods and containers, and if images is set, all images.
func (p *parts) wipePlan(images bool) WipePlan {
	plan := WipePlan{Pods: []WipePod{}, Containers: []WipeContainer{}, Images: []WipeImage{}}
	for _, pod := range p.pods.List() {
		m := pod.Config.GetMetadata()
		plan.Pods = append(plan.Pods, WipePod{ID: pod.ID, Namespace: m.GetNamespace(), Name: m.GetName(), Ready: pod.Ready})
	}
	for _, c := range p.containers.List() {
		plan.Containers = append(plan.Containers, WipeContainer{ID: c.ID, Pod: c.PodID, Name: c.Config.GetMetadata().GetName(), State: stateName(c.State)})
	}
	if images {
		for _, img := range p.images.List() {
			plan.Images = append(plan.Images, WipeImage{ID: img.ID.String(), Tags: append([]string{}, img.RepoTags...)})
		}
	}
	return plan
}

func stateName(s container.State) string {
	switch s {
	case container.Created:
		return "created"
	case container.Running:
		return "running"
	case container.Exited:
		return "exited"
	}
	return "unknown"
}

// Running returns the number of containers whose processes run or may run. The first process
// of a created container waits for the start and has not executed the user's program.
func (w WipePlan) Running() int {
	n := 0
	for _, c := range w.Containers {
		if c.State != "created" && c.State != "exited" {
			n++
		}
	}
	return n
}

// wipe removes the objects of a plan: containers before their pods, and images last.
func (p *parts) wipe(ctx context.Context, plan WipePlan) error {
	stop := func(c WipeContainer) error { return p.containers.Stop(ctx, c.ID, wipeStopTimeout) }
	removePod := func(pod WipePod) error { return p.pods.Remove(ctx, pod.ID) }
	removeContainer := func(c WipeContainer) error { return p.containers.Remove(ctx, c.ID) }
	removeImage := func(img WipeImage) error { return p.images.Remove(ctx, img.ID) }
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
	g.SetLimit(wipeParallel)
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
