package container

import (
	"maps"

	"github.com/criserver/criserver/oci"
)

// Annotations that say which container of Kubernetes an OCI config belongs to. containerd sets
// the same ones, and OCI hooks and monitoring agents read them.
const (
	annotationSandboxID        = "io.kubernetes.cri.sandbox-id"
	annotationSandboxName      = "io.kubernetes.cri.sandbox-name"
	annotationSandboxNamespace = "io.kubernetes.cri.sandbox-namespace"
	annotationSandboxUID       = "io.kubernetes.cri.sandbox-uid"
	annotationContainerName    = "io.kubernetes.cri.container-name"
	annotationImageName        = "io.kubernetes.cri.image-name"
)

// annotations returns the annotations of the pod and of the container. The annotations of the
// container take precedence.
func (p *plan) annotations() map[string]string {
	all := maps.Clone(p.pod.Config.GetAnnotations())
	if all == nil {
		return p.spec.Annotations
	}
	maps.Copy(all, p.spec.Annotations)
	return all
}

// runtimeAnnotations returns the annotations of the OCI config: the annotations of the request that the
// handler allows, and the annotations that identify the container, which a request cannot replace.
func runtimeAnnotations(c *container, p *plan) map[string]string {
	out := oci.AllowAnnotations(p.runtime.AllowedAnnotations, p.pod.Config.GetAnnotations(), p.spec.Annotations)
	if out == nil {
		out = make(map[string]string, 6)
	}
	pod := p.pod.Config.GetMetadata()
	for key, value := range map[string]string{
		annotationSandboxID: p.pod.ID, annotationSandboxName: pod.GetName(), annotationSandboxNamespace: pod.GetNamespace(),
		annotationSandboxUID: pod.GetUid(), annotationContainerName: p.spec.Name, annotationImageName: c.rec.ImageRef,
	} {
		if delete(out, key); value != "" {
			out[key] = value
		}
	}
	return out
}
