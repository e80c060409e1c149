package checkpoints

import (
	"context"
	"fmt"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// checkpointTarget is the object of a checkpoint.
type checkpointTarget struct {
	pod       *cri.PodSandbox
	container *cri.Container // nil for a checkpoint of the pod
}

// fileName returns the name of the file or directory that the command makes if no flag names one.
func (t *checkpointTarget) fileName(now time.Time) string {
	meta := t.pod.GetMetadata()
	name := "checkpoint-" + meta.GetName() + "_" + meta.GetNamespace()
	at := now.UTC().Format("20060102T150405Z")
	if t.container == nil {
		return name + "-" + at
	}
	return name + "-" + t.container.GetMetadata().GetName() + "-" + at + ".tar"
}

// findTarget returns the container or pod that a reference names: an id, the beginning of an id, NAMESPACE/POD/NAME of
// a container, or NAMESPACE/NAME of a pod. Names stand for running containers and ready pods.
func findTarget(ctx context.Context, client cri.RuntimeServiceClient, reference string) (*checkpointTarget, error) {
	pods, err := client.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	containers, err := client.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	return selectTarget(pods.GetItems(), containers.GetContainers(), reference)
}

// selectTarget returns the only object that a reference names.
func selectTarget(pods []*cri.PodSandbox, containers []*cri.Container, reference string) (*checkpointTarget, error) {
	var found []*checkpointTarget
	byID := make(map[string]*cri.PodSandbox)
	for _, p := range pods {
		byID[p.GetId()] = p
		name := p.GetMetadata().GetNamespace() + "/" + p.GetMetadata().GetName()
		if names(reference, p.GetId(), name, p.GetState() == cri.PodSandboxState_SANDBOX_READY) {
			found = append(found, &checkpointTarget{pod: p})
		}
	}
	for _, c := range containers {
		p := byID[c.GetPodSandboxId()]
		if p == nil {
			continue // the pod was removed between the two lists
		}
		name := p.GetMetadata().GetNamespace() + "/" + p.GetMetadata().GetName() + "/" + c.GetMetadata().GetName()
		if names(reference, c.GetId(), name, c.GetState() == cri.ContainerState_CONTAINER_RUNNING) {
			found = append(found, &checkpointTarget{pod: p, container: c})
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fmt.Errorf("no running container and no ready pod has the id or name %q", reference)
	}
	return nil, fmt.Errorf("%q is ambiguous: %d containers and pods have such an id or name", reference, len(found))
}

// names reports whether a reference names an object. A name names only an active object.
func names(reference, id, name string, active bool) bool {
	if strings.Contains(reference, "/") {
		return reference == name && active
	}
	return reference != "" && strings.HasPrefix(id, reference)
}
