package checkpoints

import (
	"context"
	"errors"
	"fmt"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/checkpoint/request"
	"github.com/criserver/criserver/internal/cli/command"
)

// undoTimeout limits the removal of the pod or container that the command restore has created.
const undoTimeout = 2 * time.Minute

// States of a restored container.
const (
	stateCreated = "created"
	stateRunning = "running"
)

// restorePod restores a pod and starts its containers.
func (o *restoreOptions) restorePod(ctx context.Context, client cri.RuntimeServiceClient, options request.PodOptions) (*restored, error) {
	var err error
	if o.podConfig != "" {
		if options.Config, err = request.ReadPodConfig(o.podConfig); err != nil {
			return nil, fmt.Errorf("--pod-config: %w", err)
		}
	}
	r, err := request.Pod(options)
	if err != nil {
		return nil, err
	}
	callCtx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	resp, err := client.RestorePod(callCtx, r)
	if err != nil {
		return nil, err
	}
	meta := r.GetConfig().GetMetadata()
	result := &restored{PodSandboxID: resp.GetPodSandboxId(), Namespace: meta.GetNamespace(), Pod: meta.GetName()}
	for _, c := range resp.GetRestoredContainers() {
		result.Containers = append(result.Containers, restoredContainer{ID: c.GetContainerId(), Name: c.GetName(), State: stateCreated})
	}
	return result, o.startAll(ctx, client, result, func(ctx context.Context) error {
		_, stopErr := client.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: result.PodSandboxID})
		_, removeErr := client.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: result.PodSandboxID})
		return errors.Join(stopErr, removeErr)
	})
}

// restoreContainer restores a container in a running pod and starts the container.
func (o *restoreOptions) restoreContainer(ctx context.Context, client cri.RuntimeServiceClient, options request.ContainerOptions) (*restored, error) {
	target, err := findTarget(ctx, client, o.pod)
	if err != nil {
		return nil, fmt.Errorf("--pod: %w", err)
	}
	if target.container != nil {
		return nil, fmt.Errorf("--pod: %q is a container", o.pod)
	}
	pod := target.pod
	list, err := client.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: pod.GetId()}})
	if err != nil {
		return nil, err
	}
	options.Pod = pod.GetMetadata()
	for _, c := range list.GetContainers() {
		options.Present = append(options.Present, c.GetMetadata())
	}
	c, err := request.Container(ctx, options)
	if err != nil {
		return nil, err
	}
	name := c.GetMetadata().GetName()
	for _, other := range list.GetContainers() {
		if other.GetMetadata().GetName() == name && other.GetState() != cri.ContainerState_CONTAINER_EXITED {
			return nil, fmt.Errorf("container %q of the pod has the name %q and has not exited: use another name with --name, or stop the container",
				command.ShortID(other.GetId()), name)
		}
	}
	callCtx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	resp, err := client.CreateContainer(callCtx, &cri.CreateContainerRequest{
		PodSandboxId: pod.GetId(), Config: c,
		SandboxConfig: &cri.PodSandboxConfig{Metadata: pod.GetMetadata(), Labels: pod.GetLabels(), Annotations: pod.GetAnnotations()},
	})
	if err != nil {
		return nil, err
	}
	result := &restored{
		PodSandboxID: pod.GetId(), Namespace: pod.GetMetadata().GetNamespace(), Pod: pod.GetMetadata().GetName(),
		Containers: []restoredContainer{{ID: resp.GetContainerId(), Name: name, State: stateCreated}},
	}
	return result, o.startAll(ctx, client, result, func(ctx context.Context) error {
		_, err := client.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: resp.GetContainerId()})
		return err
	})
}

// startAll starts the restored containers. If a start fails, startAll calls undo, also if ctx has ended.
func (o *restoreOptions) startAll(ctx context.Context, client cri.RuntimeServiceClient, r *restored, undo func(context.Context) error) error {
	if o.noStart {
		return nil
	}
	for i := range r.Containers {
		c := &r.Containers[i]
		err := o.start(ctx, client, c.ID)
		if err == nil {
			c.State = stateRunning
			continue
		}
		undoCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		err = fmt.Errorf("start container %q: %w", c.Name, err)
		if undoErr := undo(undoCtx); undoErr != nil {
			return errors.Join(err, fmt.Errorf("remove the restored objects: %w", undoErr))
		}
		return err
	}
	return nil
}

// start starts one container.
func (o *restoreOptions) start(ctx context.Context, client cri.RuntimeServiceClient, id string) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	_, err := client.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: id})
	return err
}
