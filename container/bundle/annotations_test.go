package bundle

import (
	"maps"
	"testing"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/oci/runtime"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestRuntimeAnnotations checks that the config has only the annotations that the handler allows, and that a request
// cannot replace the annotations that identify the container.
func TestRuntimeAnnotations(t *testing.T) {
	r := &Request{
		ImageRef: "busybox", Runtime: &runtime.Runtime{AllowedAnnotations: []string{"allowed", "io.kubernetes.cri.*"}},
		Pod: Pod{ID: "pod", Config: &cri.PodSandboxConfig{
			Metadata:    &cri.PodSandboxMetadata{Name: "p", Uid: "u"},
			Annotations: map[string]string{"allowed": "pod", "other": "pod", annotationSandboxNamespace: "forged"},
		}},
		Spec: &containerspec.Spec{Name: "c", Annotations: map[string]string{"allowed": "container", annotationSandboxID: "forged"}},
	}
	want := map[string]string{
		"allowed": "container", annotationSandboxID: "pod", annotationSandboxName: "p", annotationSandboxUID: "u",
		annotationContainerName: "c", annotationImageName: "busybox",
	}
	if got := r.runtimeAnnotations(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := r.annotations(); got["allowed"] != "container" || got["other"] != "pod" {
		t.Errorf("annotations for conditions: got %v, want those of the pod and of the container", got)
	}
}
