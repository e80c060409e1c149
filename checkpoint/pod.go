package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/container"
	"github.com/sirupsen/logrus"
)

// partialDir is the directory for temporary files in the directory of a pod checkpoint.
const partialDir = ".partial"

// PodRequest asks for a checkpoint of a pod.
type PodRequest struct {
	ID  string // or a unique prefix of the id
	Dir string // absolute path of an existing, empty directory
	// Containers are the ids of all running containers of the pod.
	Containers []string
	// Options must be empty, because the daemon defines no options.
	Options map[string]string
	// Progress is called several times a second. It can be nil, and must not wait.
	Progress func(Progress)
}

// Pod writes a checkpoint of all running containers of a pod to a directory. Pod freezes all containers, captures all
// containers, and thaws all containers before it writes the archives. After an error the directory is empty again. The
// CRI requires a deadline of ctx.
//
// Errors: ErrInvalidArgument for a request that breaks a rule of the CRI; ErrNotFound; ErrFailedPrecondition if the
// pod or a container does not run, if the directory is not empty, if another container of the pod runs, or if the pod
// has state that a checkpoint cannot contain; ErrNotImplemented if the runtime handler cannot checkpoint;
// DeadlineExceeded; ErrAborted if a container is being stopped.
func (m *Manager) Pod(ctx context.Context, r PodRequest) (err error) {
	if _, ok := ctx.Deadline(); !ok {
		return invalid("the call must have a deadline")
	}
	if err := r.check(); err != nil {
		return err
	}
	pod, err := m.cfg.Pods.Get(r.ID)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err = m.podSession(ctx, pod.ID, r); err != nil {
		return fmt.Errorf("checkpoint pod %q: %w", short(pod.ID), classify(ctx, err))
	}
	return nil
}

func (r *PodRequest) check() error {
	for key := range r.Options {
		return invalid("options: %q is unknown; options must be empty", key)
	}
	switch {
	case r.Dir == "":
		return invalid("output_path must be given")
	case !filepath.IsAbs(r.Dir) || filepath.Clean(r.Dir) != r.Dir || r.Dir == "/":
		return invalid("output_path must be an absolute path of a directory, without \".\" and \"..\", is %q", r.Dir)
	case len(r.Containers) == 0:
		return invalid("container_ids must not be empty")
	case len(r.Containers) > archive.MaxContainers:
		return invalid("container_ids must have at most %d entries", archive.MaxContainers)
	}
	return nil
}

// podSession checks the request against the state of the pod and writes the checkpoint.
func (m *Manager) podSession(ctx context.Context, podID string, r PodRequest) error {
	selected, err := m.selectContainers(podID, r.Containers)
	if err != nil {
		return err
	}
	s, err := m.open(ctx, podID, selected[0].RuntimeHandler, r.Progress)
	if err != nil {
		return err
	}
	s.log = logrus.WithContext(ctx).WithField("pod", podID)
	root, output, err := openOutput(r.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	list := make([]string, len(selected))
	for i, c := range selected {
		list[i] = c.ID
	}
	if ctx, err = s.hold(ctx, list); err != nil {
		return err
	}
	defer s.release()
	// Another container of the pod may have started before all selected containers were held.
	if err := m.checkRunning(podID, selected); err != nil {
		return err
	}
	return s.writePod(ctx, root, output)
}

// selectContainers returns the containers of the request, and checks the rules for them.
func (m *Manager) selectContainers(podID string, requested []string) ([]*container.Snapshot, error) {
	pod, err := m.cfg.Pods.Get(podID)
	if err != nil {
		return nil, err
	}
	if !pod.Ready {
		return nil, failedPrecondition("the pod is not ready: %s", pod.NotReadyReason)
	}
	var selected []*container.Snapshot
	seen, names := make(map[string]bool), make(map[string]bool)
	for i, id := range requested {
		c, err := m.cfg.Containers.Get(id)
		if err != nil {
			return nil, fmt.Errorf("container_ids[%d]: %w", i, err)
		}
		name := c.Config.GetMetadata().GetName()
		switch {
		case c.PodID != podID:
			return nil, invalid("container_ids[%d]: container %q belongs to pod %q", i, short(c.ID), short(c.PodID))
		case seen[c.ID]:
			return nil, invalid("container_ids[%d]: container %q occurs twice", i, short(c.ID))
		case names[name]:
			return nil, failedPrecondition("container_ids[%d]: another container has the name %q", i, name)
		case c.State != container.Running:
			return nil, failedPrecondition("container_ids[%d]: container %q is %s", i, short(c.ID), c.State)
		}
		seen[c.ID], names[name] = true, true
		selected = append(selected, c)
	}
	return selected, m.checkRunning(podID, selected)
}

// checkRunning returns an error if a container of the pod runs and is not selected. The checkpoint would be
// inconsistent, because the container would change shared files while the selected containers are frozen.
func (m *Manager) checkRunning(podID string, selected []*container.Snapshot) error {
	known := make(map[string]bool)
	for _, c := range selected {
		known[c.ID] = true
	}
	for _, c := range m.cfg.Containers.List() {
		if c.PodID == podID && (c.State == container.Running || c.State == container.Unknown) && !known[c.ID] {
			return failedPrecondition("container %q (%s) of the pod is %s and is not in container_ids",
				short(c.ID), c.Config.GetMetadata().GetName(), c.State)
		}
	}
	return nil
}

// openOutput opens the directory of the checkpoint, which must be empty, and returns its identity.
func openOutput(path string) (*os.Root, *outputDir, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil, invalid("output_path: %q does not exist", path)
	case err != nil:
		return nil, nil, err
	case !info.IsDir():
		return nil, nil, invalid("output_path: %q is not a directory", path)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, nil, err
	}
	dir, err := root.Open(".")
	var output *outputDir
	if err == nil {
		if output, err = identify(path, dir); err == nil {
			_, err = dir.Readdirnames(1)
		}
		_ = dir.Close()
	}
	switch {
	case errors.Is(err, io.EOF):
		return root, output, nil
	case err == nil:
		err = failedPrecondition("output_path: %q is not empty", path)
	}
	return nil, nil, errors.Join(err, root.Close())
}
