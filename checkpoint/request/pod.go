package request

import (
	"crypto/rand"
	"fmt"
	"os"
	"path"

	"github.com/criserver/criserver/checkpoint/archive"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PodOptions are the input of Pod.
type PodOptions struct {
	// Dir is the absolute path of the directory of a pod checkpoint.
	Dir string
	Key archive.Key
	// Config replaces the config of the pod in the checkpoint, unless it is nil.
	Config *cri.PodSandboxConfig
	// Containers replace the configs of containers in the checkpoint, by name.
	Containers []*cri.ContainerConfig
	// Name and UID replace the name and the uid of the pod, unless they are empty. A pod with another name gets a random
	// uid if UID is empty.
	Name, UID string
}

// Pod returns a request for RestorePod.
//
// Errors: the errors of archive.ReadManifest; ErrFailedPrecondition if a daemon with another key has written the
// checkpoint; and an error for a config that is missing, is not valid, or belongs to no container of the checkpoint.
func Pod(o PodOptions) (*cri.RestorePodRequest, error) {
	dir, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	m, err := archive.ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	if err := m.Verify(o.Key); err != nil {
		return nil, err
	}
	r := &cri.RestorePodRequest{CheckpointPath: o.Dir, Config: o.Config, RuntimeHandler: m.Runtime.Handler}
	if r.Config == nil {
		r.Config = &cri.PodSandboxConfig{}
		if err := parse(m.Pod.Config, r.Config); err != nil {
			return nil, fmt.Errorf("config of the pod: %w", err)
		}
	}
	if r.ContainerConfigs, err = o.containers(m); err != nil {
		return nil, err
	}
	rename(r, o.Name, o.UID)
	return r, nil
}

// containers returns the configs of all containers.
func (o *PodOptions) containers(m *archive.Manifest) (list []*cri.ContainerConfig, err error) {
	given := make(map[string]*cri.ContainerConfig)
	for _, c := range o.Containers {
		name := c.GetMetadata().GetName()
		if given[name] != nil {
			return nil, fmt.Errorf("two configs of container %q are given", name)
		}
		given[name] = c
	}
	for _, c := range m.Containers {
		config := given[c.Name]
		if config == nil {
			if config, err = containerConfig(c.Name, c.Config); err != nil {
				return nil, err
			}
			useImage(config, &c)
		}
		delete(given, c.Name)
		list = append(list, config)
	}
	for name := range given {
		return nil, fmt.Errorf("a config of container %q is given, but the checkpoint has no such container", name)
	}
	return list, nil
}

// rename gives the pod of a request another name or uid, and changes the values that the kubelet derives from both: the
// labels and the directory of the logs, so that two pods do not write the same logs.
func rename(r *cri.RestorePodRequest, name, uid string) {
	if name == "" && uid == "" {
		return
	}
	if r.Config.Metadata == nil {
		r.Config.Metadata = &cri.PodSandboxMetadata{}
	}
	meta := r.Config.Metadata
	if name != "" {
		meta.Name = name
	}
	if uid == "" {
		uid = newUID()
	}
	meta.Uid = uid
	if dir := r.Config.LogDirectory; dir != "" {
		r.Config.LogDirectory = path.Join(path.Dir(dir), meta.Namespace+"_"+meta.Name+"_"+meta.Uid)
	}
	relabel(r.Config.Labels, podLabels(meta))
	for _, c := range r.ContainerConfigs {
		relabel(c.Labels, podLabels(meta))
	}
}

// newUID returns a random UUID of version 4.
func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
