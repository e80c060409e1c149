package request

import (
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels with which the kubelet identifies the pod and the name of a container.
const (
	labelPodName       = "io.kubernetes.pod.name"
	labelPodNamespace  = "io.kubernetes.pod.namespace"
	labelPodUID        = "io.kubernetes.pod.uid"
	labelContainerName = "io.kubernetes.container.name"
)

// relabel replaces the values of labels that are present.
func relabel(labels map[string]string, values map[string]string) {
	for key, value := range values {
		if _, ok := labels[key]; ok {
			labels[key] = value
		}
	}
}

// podLabels returns the labels that identify a pod.
func podLabels(m *cri.PodSandboxMetadata) map[string]string {
	return map[string]string{labelPodName: m.GetName(), labelPodNamespace: m.GetNamespace(), labelPodUID: m.GetUid()}
}
