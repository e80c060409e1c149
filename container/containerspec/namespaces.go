package containerspec

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/userns"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PIDNamespace is the choice of a container: all other namespaces are the namespaces of
// the pod.
type PIDNamespace struct {
	Mode cri.NamespaceMode
	// TargetID is the container whose PID namespace is joined, if Mode is TARGET.
	TargetID string
}

const namespaceOptions = "config.linux.security_context.namespace_options."

func (p *parser) namespaces() error {
	o := p.securityContext().GetNamespaceOptions()
	if err := checkUserNamespace(o, p.Pod); err != nil {
		return err
	}
	switch o.GetPid() {
	case cri.NamespaceMode_POD, cri.NamespaceMode_CONTAINER, cri.NamespaceMode_NODE:
	case cri.NamespaceMode_TARGET:
		if p.Node != nil && p.Node.Guest {
			return fmt.Errorf(namespaceOptions+"pid TARGET: runtime handler %q cannot join another container: %w",
				p.Node.Handler, errdefs.ErrNotImplemented)
		}
	default:
		return invalid(namespaceOptions+"pid %d is unknown", o.GetPid())
	}
	p.spec.PID = PIDNamespace{Mode: o.GetPid(), TargetID: o.GetTargetId()}
	return nil
}

// checkUserNamespace checks that the request names the user namespace of the pod, or
// none. A container with a user namespace cannot join namespaces of the host.
func checkUserNamespace(o *cri.NamespaceOption, pod *cri.PodSandboxConfig) error {
	podHasOne := hasUserNamespace(podUserNamespace(pod))
	if u := o.GetUsernsOptions(); u != nil {
		switch u.GetMode() {
		case cri.NamespaceMode_POD:
		case cri.NamespaceMode_NODE:
			if len(u.GetUids())+len(u.GetGids()) > 0 {
				return invalid(namespaceOptions + "userns_options.mode is NODE, with which uids and gids must be empty")
			}
		default:
			return invalid(namespaceOptions+"userns_options.mode is %s; it can be POD or NODE", u.GetMode())
		}
		if hasUserNamespace(u) != podHasOne || !mapsOf(u).Equal(UserMaps(pod)) {
			return invalid(namespaceOptions + "userns_options must be the same as the pod sandbox's")
		}
	}
	if podHasOne && o.GetPid() == cri.NamespaceMode_NODE {
		return invalid(namespaceOptions + "pid must not be NODE in a pod that has a user namespace of its own")
	}
	return nil
}

// UserMaps returns the id maps of the user namespace of a pod. The maps are empty if
// the pod uses the user namespace of the host.
func UserMaps(pod *cri.PodSandboxConfig) userns.Maps { return mapsOf(podUserNamespace(pod)) }

func podUserNamespace(pod *cri.PodSandboxConfig) *cri.UserNamespace {
	return pod.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
}

// hasUserNamespace needs the check for nil: the zero mode is POD.
func hasUserNamespace(u *cri.UserNamespace) bool {
	return u != nil && u.GetMode() == cri.NamespaceMode_POD
}

func mapsOf(u *cri.UserNamespace) userns.Maps {
	if !hasUserNamespace(u) {
		return userns.Maps{}
	}
	return userns.Maps{UIDs: mappings(u.GetUids()), GIDs: mappings(u.GetGids())}
}

func mappings(list []*cri.IDMapping) []userns.Mapping {
	out := make([]userns.Mapping, len(list))
	for i, m := range list {
		out[i] = userns.Mapping{ContainerID: m.GetContainerId(), HostID: m.GetHostId(), Size: m.GetLength()}
	}
	return out
}
