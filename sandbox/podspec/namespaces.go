package podspec

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/userns"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	securityField   = "linux.security_context."
	namespacesField = securityField + "namespace_options."
)

// Namespaces says which namespaces a pod shares with the host. The zero value is also the default of the CRI, except
// for SharedPID: a mode that is not set is POD (CRI, NamespaceOption).
type Namespaces struct {
	// HostNetwork is true if the pod uses the network namespace of the host, and thus its UTS namespace.
	HostNetwork bool
	HostIPC     bool
	// SharedPID is true if all containers share one PID namespace, which a pause process holds. The kubelet asks for
	// one PID namespace per container by default.
	SharedPID bool
	// User has the ID maps of the pod's user namespace. A pod with nil uses the user namespace of the host.
	User *userns.Maps
}

// Root returns the IDs that root of the pod's containers has on the host.
func (n Namespaces) Root() (uid, gid uint32) {
	if n.User != nil {
		uid, gid, _ = n.User.Root() // userNamespace has checked the maps
	}
	return uid, gid
}

func (p *parser) namespaceOptions() *cri.NamespaceOption {
	return p.config.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

// namespaces parses the modes of all namespaces but the user namespace.
func (p *parser) namespaces() error {
	o := p.namespaceOptions()
	n := &p.spec.Namespaces
	n.HostNetwork = o.GetNetwork() == cri.NamespaceMode_NODE
	n.HostIPC = o.GetIpc() == cri.NamespaceMode_NODE
	n.SharedPID = o.GetPid() == cri.NamespaceMode_POD
	for _, f := range []struct {
		name string
		mode cri.NamespaceMode
	}{{"network", o.GetNetwork()}, {"ipc", o.GetIpc()}} {
		if f.mode != cri.NamespaceMode_POD && f.mode != cri.NamespaceMode_NODE {
			return invalid(namespacesField+f.name, "is %s, but must be POD or NODE for a pod", f.mode)
		}
	}
	switch o.GetPid() {
	case cri.NamespaceMode_POD, cri.NamespaceMode_CONTAINER, cri.NamespaceMode_NODE:
	default:
		return invalid(namespacesField+"pid", "is %s, but must be POD, CONTAINER or NODE for a pod", o.GetPid())
	}
	if n.SharedPID && p.node != nil && !p.node.Pause {
		return invalid(namespacesField+"pid", "is POD, which needs a pause binary, but the daemon has none")
	}
	return nil
}

// userNamespace checks the rules of the CRI (UserNamespace) and of the kubelet: one mapping, which begins at ID 0 and
// is the same for users and groups, and neither the PID nor the IPC namespace of the host. The pod can use the
// network namespace of the host (feature UserNamespacesHostNetworkSupport of Kubernetes).
func (p *parser) userNamespace() error {
	const field = namespacesField + "userns_options."
	o := p.namespaceOptions()
	u := o.GetUsernsOptions()
	switch {
	case u == nil:
		return nil
	case u.Mode == cri.NamespaceMode_NODE:
		if len(u.Uids)+len(u.Gids) > 0 {
			return invalid(field+"mode", "is NODE, which requires empty uids and gids")
		}
		return nil
	case u.Mode != cri.NamespaceMode_POD:
		return invalid(field+"mode", "is %s, but must be POD or NODE for a pod", u.Mode)
	}
	maps := userns.Maps{UIDs: idMappings(u.Uids), GIDs: idMappings(u.Gids)}
	p.spec.Namespaces.User = &maps
	if err := checkIDMaps(field, maps); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		mode cri.NamespaceMode
	}{{"pid", o.Pid}, {"ipc", o.Ipc}} {
		if f.mode == cri.NamespaceMode_NODE {
			return invalid(namespacesField+f.name, "must not be NODE for a pod with a user namespace")
		}
	}
	return p.userNamespaceSupport()
}

func checkIDMaps(field string, maps userns.Maps) error {
	for _, f := range []struct {
		name string
		list []userns.Mapping
	}{{"uids", maps.UIDs}, {"gids", maps.GIDs}} {
		if len(f.list) != 1 {
			return invalid(field+f.name, "must have one mapping, but has %d", len(f.list))
		}
		if f.list[0].ContainerID != 0 {
			return invalid(field+f.name+"[0].container_id", "%d must be 0", f.list[0].ContainerID)
		}
		if err := userns.Check(f.list); err != nil {
			return invalid(field+f.name, "%s", err)
		}
	}
	if maps.UIDs[0] != maps.GIDs[0] {
		return invalid(field+"gids", "must be the same mapping as uids")
	}
	return nil
}

// userNamespaceSupport refuses a user namespace that the node or the runtime handler does not support, instead of
// running the pod without it.
func (p *parser) userNamespaceSupport() error {
	if p.node == nil {
		return nil
	}
	supported, kind := p.node.UserNamespaces, "a user namespace"
	if p.spec.Namespaces.HostNetwork {
		supported, kind = p.node.HostNetworkUserNamespaces, "a user namespace and the network of the host"
	}
	reason := errors.New("the configuration of the daemon does not support user namespaces")
	if supported != nil && p.node.Pause {
		reason = supported(p.spec.Handler)
	}
	if reason == nil {
		return nil
	}
	return fmt.Errorf("%suserns_options.mode is POD, but runtime handler %q cannot run pods with %s on this node: %w: %w",
		namespacesField, p.spec.Handler, kind, reason, errdefs.ErrFailedPrecondition)
}

func idMappings(list []*cri.IDMapping) []userns.Mapping {
	out := make([]userns.Mapping, len(list))
	for i, m := range list {
		out[i] = userns.Mapping{ContainerID: m.GetContainerId(), HostID: m.GetHostId(), Size: m.GetLength()}
	}
	return out
}
