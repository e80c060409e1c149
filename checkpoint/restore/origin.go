package restore

import (
	"runtime"

	"github.com/criserver/criserver/checkpoint/archive"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// checkOrigin returns an error if a checkpoint from a node of another kind cannot be restored on this node.
func (m *Manager) checkOrigin(o *archive.Origin) error {
	switch {
	case o.Architecture != runtime.GOARCH:
		return mismatch("the checkpoint is from the architecture %q, this node has %q", o.Architecture, runtime.GOARCH)
	case o.CgroupV2 != m.cfg.CgroupV2:
		return mismatch("the checkpoint is from a node with another version of cgroups")
	}
	return nil
}

// checkPod compares the pod of the request with the pod of the checkpoint.
func checkPod(r *cri.RestorePodRequest, m *archive.Manifest) error {
	ns := r.GetConfig().GetLinux().GetSecurityContext().GetNamespaceOptions()
	if err := checkNamespace("network", ns.GetNetwork(), m.Pod.Network); err != nil {
		return err
	}
	if err := checkNamespace("ipc", ns.GetIpc(), m.Pod.IPC); err != nil {
		return err
	}
	if h := r.GetRuntimeHandler(); h != "" && h != m.Runtime.Handler {
		return mismatch("runtime_handler %q is not the handler of the checkpoint, %q", h, m.Runtime.Handler)
	}
	return nil
}

// checkNamespace compares the mode of a namespace in the request with the namespace in the checkpoint.
func checkNamespace(name string, requested cri.NamespaceMode, present string) error {
	if (requested == cri.NamespaceMode_NODE) != (present == archive.NamespaceOfNode) {
		return mismatch("config.linux.security_context.namespace_options.%s is %s, but the checkpoint used the namespace of the %s", name, requested, present)
	}
	return nil
}
