package critest

import (
	"context"
	"errors"
	"fmt"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"

	"github.com/criserver/criserver/test/harness"
)

// clients are the CRI clients of the runtime under test.
type clients struct {
	runtime internalapi.RuntimeService
	image   internalapi.ImageManagerService
}

func connect(ctx context.Context, socket string) (*clients, error) {
	endpoint := "unix://" + socket
	runtime, err := remote.NewRemoteRuntimeService(ctx, endpoint, harness.Patience(time.Minute), nil, false)
	if err != nil {
		return nil, err
	}
	image, err := remote.NewRemoteImageService(ctx, endpoint, harness.Patience(time.Minute), nil, false)
	if err != nil {
		return nil, err
	}
	return &clients{runtime, image}, nil
}

// waitReady waits until all conditions of the runtime are true.
func (c *clients) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience(30*time.Second))
	defer cancel()
	for {
		err := c.status(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the runtime is not ready: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *clients) status(ctx context.Context) error {
	status, err := c.runtime.Status(ctx, false)
	if err != nil {
		return err
	}
	for _, cond := range status.GetStatus().GetConditions() {
		if !cond.GetStatus() {
			return fmt.Errorf("%s: %s: %s", cond.GetType(), cond.GetReason(), cond.GetMessage())
		}
	}
	return nil
}

// runFirstPod pulls an image, runs a pod with a container, and removes all of them. It also requests the status of an
// image by a short name, for which the image library keeps a lock file.
func (c *clients) runFirstPod(ctx context.Context) error {
	if _, err := c.image.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: "short"}, false); err != nil {
		return err
	}
	pod := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "first", Namespace: "critest", Uid: "first"},
		Linux:        &runtimeapi.LinuxPodSandboxConfig{},
		PortMappings: []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 12000}},
	}
	spec := &runtimeapi.ImageSpec{Image: "registry.k8s.io/e2e-test-images/busybox:1.29-2"}
	ref, err := c.image.PullImage(ctx, spec, nil, pod)
	if err != nil {
		return err
	}
	id, err := c.runtime.RunPodSandbox(ctx, pod, "")
	if err != nil {
		return err
	}
	container, err := c.runtime.CreateContainer(ctx, id, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "first"},
		Image:    &runtimeapi.ImageSpec{Image: ref, UserSpecifiedImage: spec.Image},
		Command:  []string{"true"},
		Linux:    &runtimeapi.LinuxContainerConfig{},
	}, pod)
	if err != nil {
		return err
	}
	if err := c.runtime.StartContainer(ctx, container); err != nil {
		return err
	}
	_, err = c.removeAll(ctx)
	return err
}

// removeAll removes all pods and images, and returns the number of pods. A spec that failed may leave pods.
func (c *clients) removeAll(ctx context.Context) (pods int, err error) {
	list, err := c.runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, pod := range list {
		if err := errors.Join(c.runtime.StopPodSandbox(ctx, pod.GetId()), c.runtime.RemovePodSandbox(ctx, pod.GetId())); err != nil {
			errs = append(errs, fmt.Errorf("remove pod %q: %w", pod.GetId(), err))
		}
	}
	images, err := c.image.ListImages(ctx, nil)
	errs = append(errs, err)
	for _, i := range images {
		if err := c.image.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: i.GetId()}); err != nil {
			errs = append(errs, fmt.Errorf("remove image %q: %w", i.GetId(), err))
		}
	}
	return len(list), errors.Join(errs...)
}
