package restore

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criserver/criserver/checkpoint/archive"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// checkRequest checks the rules of the CRI that concern only the request.
func checkRequest(r *cri.RestorePodRequest) error {
	path := r.GetCheckpointPath()
	switch {
	case path == "":
		return invalid("checkpoint_path must be given")
	case !filepath.IsAbs(path):
		return invalid("checkpoint_path %q must be absolute", path)
	case r.GetConfig() == nil:
		return invalid("config must be given")
	case r.GetConfig().GetMetadata() == nil:
		return invalid("config.metadata must be given")
	case len(r.GetContainerConfigs()) == 0:
		return invalid("container_configs must not be empty")
	}
	for key := range r.GetOptions() {
		return invalid("options: %q is unknown; options must be empty", key)
	}
	seen := make(map[string]bool)
	for i, c := range r.GetContainerConfigs() {
		name := c.GetMetadata().GetName()
		switch {
		case name == "":
			return invalid("container_configs[%d].metadata.name must be given", i)
		case seen[name]:
			return invalid("container_configs[%d].metadata.name %q occurs twice", i, name)
		}
		seen[name] = true
	}
	return nil
}

// checkNames returns an error unless the names of the request are the names of the checkpoint.
func checkNames(configs []*cri.ContainerConfig, m *archive.Manifest) error {
	var requested, present []string
	for _, c := range configs {
		requested = append(requested, c.GetMetadata().GetName())
	}
	for _, c := range m.Containers {
		present = append(present, c.Name)
	}
	slices.Sort(requested)
	slices.Sort(present)
	if !slices.Equal(requested, present) {
		return invalid("container_configs must have exactly the containers of the checkpoint, %q, not %q", present, requested)
	}
	return nil
}

// podKey identifies a pod for the kubelet.
type podKey struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Attempt   uint32 `json:"attempt"`
}

// keyOf returns the key of a pod.
func keyOf(c *cri.PodSandboxConfig) podKey {
	m := c.GetMetadata()
	return podKey{m.GetNamespace(), m.GetName(), m.GetUid(), m.GetAttempt()}
}

func (k podKey) String() string {
	return strings.Join([]string{k.Namespace, k.Name, k.UID, fmt.Sprint(k.Attempt)}, "/")
}
