package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/oci"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// namespaces returns the namespaces of a container. They are the namespaces of the pod,
// but the PID namespace is the choice of the container. The file, which can be nil,
// must stay open until the runtime has created the container.
func (m *Manager) namespaces(pid containerspec.PIDNamespace, p Pod) (oci.Namespaces, *os.File, error) {
	ns := oci.Namespaces{Net: p.NetNS, IPC: p.IPCNS, UTS: p.UTSNS, User: p.UserNS}
	switch pid.Mode {
	case cri.NamespaceMode_CONTAINER:
		ns.NewPID = true
	case cri.NamespaceMode_POD:
		ns.PID = p.PIDNS
		// POD is also the value of a request without namespace options. In a pod without a
		// shared PID namespace, each container has its own.
		ns.NewPID = p.PIDNS == "" && p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid() != cri.NamespaceMode_NODE
	case cri.NamespaceMode_TARGET:
		f, err := m.openPIDNamespace(pid.TargetID, p.ID)
		if err != nil {
			return ns, nil, fmt.Errorf("config.linux.security_context.namespace_options.target_id: %w", err)
		}
		// The open file refers to the namespace even if the pid is reused.
		ns.PID = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
		return ns, f, nil
	}
	return ns, nil, nil
}

// openPIDNamespace opens the PID namespace of another container of the same pod.
func (m *Manager) openPIDNamespace(id, podID string) (*os.File, error) {
	target, err := m.find(id)
	if err != nil {
		return nil, err
	}
	if target.rec.PodID != podID {
		return nil, invalid("container %q is in another pod", short(id))
	}
	init, _ := target.refs()
	f, err := os.Open("/proc/" + strconv.Itoa(init.PID) + "/ns/pid")
	// If the process still runs after the file was opened, the pid was not reused before.
	if err == nil && init.Alive() {
		return f, nil
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nil, fmt.Errorf("container %q is not running: %w", short(id), errdefs.ErrFailedPrecondition)
}
