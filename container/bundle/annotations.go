package bundle

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
func (r *Request) annotations() map[string]string {
	all := maps.Clone(r.Pod.Config.GetAnnotations())
	if all == nil {
		return r.Spec.Annotations
	}
	maps.Copy(all, r.Spec.Annotations)
	return all
}

// runtimeAnnotations returns the annotations of the OCI config: the annotations of the request that the
// handler allows, and the annotations that identify the container, which a request cannot replace.
func (r *Request) runtimeAnnotations() map[string]string {
	out := oci.AllowAnnotations(r.Runtime.AllowedAnnotations, r.Pod.Config.GetAnnotations(), r.Spec.Annotations)
	if out == nil {
		out = make(map[string]string, 6)
	}
	pod := r.Pod.Config.GetMetadata()
	for key, value := range map[string]string{
		annotationSandboxID: r.Pod.ID, annotationSandboxName: pod.GetName(), annotationSandboxNamespace: pod.GetNamespace(),
		annotationSandboxUID: pod.GetUid(), annotationContainerName: r.Spec.Name, annotationImageName: r.ImageRef,
	} {
		if delete(out, key); value != "" {
			out[key] = value
		}
	}
	return out
}
