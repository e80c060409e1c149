package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/sandbox/namespace"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// userMaps are the id maps of the pod's own user namespace, nil for one that
// has the host's.
func userMaps(c *cri.PodSandboxConfig) *userns.Maps {
	u := namespaceOptions(c).GetUsernsOptions()
	if u == nil || u.Mode != cri.NamespaceMode_POD {
		return nil
	}
	return &userns.Maps{UIDs: mappings(u.Uids), GIDs: mappings(u.Gids)}
}

func mappings(list []*cri.IDMapping) []userns.Mapping {
	out := make([]userns.Mapping, len(list))
	for i, m := range list {
		out[i] = userns.Mapping{ContainerID: m.GetContainerId(), HostID: m.GetHostId(), Size: m.GetLength()}
	}
	return out
}

// checkUserNamespace holds the request to the rules of the CRI (UserNamespace),
// and to the kubelet's: one mapping, from id 0 on and the same for users and
// groups, and no other namespace of the host, over which the pod's root would
// have no rights.
func checkUserNamespace(prefix string, o *cri.NamespaceOption) error {
	u := o.GetUsernsOptions()
	field := prefix + "userns_options."
	switch {
	case u == nil:
		return nil
	case u.Mode == cri.NamespaceMode_NODE:
		if len(u.Uids)+len(u.Gids) > 0 {
			return invalid(field+"mode", "is NODE, with which uids and gids must be empty")
		}
		return nil
	case u.Mode != cri.NamespaceMode_POD:
		return invalid(field+"mode", "is %s; a pod's can be POD or NODE", u.Mode)
	}
	for _, f := range []struct {
		name string
		list []*cri.IDMapping
	}{{"uids", u.Uids}, {"gids", u.Gids}} {
		if len(f.list) != 1 {
			return invalid(field+f.name, "must have one mapping, and has %d", len(f.list))
		}
		list := mappings(f.list)
		if list[0].ContainerID != 0 {
			return invalid(field+f.name+"[0].container_id", "%d must be 0", list[0].ContainerID)
		}
		if err := userns.Check(list); err != nil {
			return invalid(field+f.name, "%s", err)
		}
	}
	if m := (userns.Maps{UIDs: mappings(u.Uids), GIDs: mappings(u.Gids)}); m.UIDs[0] != m.GIDs[0] {
		return invalid(field+"gids", "must be the same mapping as uids")
	}
	for _, f := range []struct {
		name string
		mode cri.NamespaceMode
	}{{"network", o.Network}, {"pid", o.Pid}, {"ipc", o.Ipc}} {
		if f.mode == cri.NamespaceMode_NODE {
			return invalid(prefix+f.name, "must not be NODE in a pod that has a user namespace of its own")
		}
	}
	return nil
}

// checkUserNamespaceSupport refuses a user namespace that the machine or the
// handler does not make good, instead of running the pod without it.
func (m *Manager) checkUserNamespaceSupport(c *cri.PodSandboxConfig, handler string) error {
	if userMaps(c) == nil {
		return nil
	}
	reason := errors.New("this daemon is set up without them")
	if m.cfg.UserNamespaces != nil && m.cfg.PausePath != "" {
		reason = m.cfg.UserNamespaces(handler)
	}
	if reason == nil {
		return nil
	}
	return fmt.Errorf("linux.security_context.namespace_options.userns_options.mode is POD, and runtime handler %q cannot run pods with a user namespace here: %w: %w",
		handler, reason, errdefs.ErrFailedPrecondition)
}

// root returns who the root of the pod's containers is on the host.
func (b *build) root() (uid, gid uint32) {
	if m := userMaps(b.config); m != nil {
		uid, gid, _ = m.Root() // the maps were checked
	}
	return uid, gid
}

// own has a pod's namespaces belong to its own user namespace, where it has one.
// A PID namespace that is shared must too, or nobody in it could mount its
// /proc: then the pause, which it needs anyway, is the first in all of them.
func (b *build) own(ctx context.Context, spec *namespace.Spec) (owned bool, err error) {
	maps := userMaps(b.config)
	if maps == nil {
		return false, nil
	}
	spec.Owner = &namespace.Owner{Maps: *maps, Holder: userns.Holder{
		Path: b.m.cfg.PausePath, Args: []string{"pause", "namespaces of " + b.rec.ID},
	}, QueueLabel: b.rec.MountLabel}
	if !sharesPID(b.config) {
		return true, nil
	}
	if err := os.Mkdir(spec.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return true, err
	}
	if err := b.pause(ctx, maps, spec.Flags()); err != nil {
		return true, err
	}
	spec.Owner.PID = b.rec.Pause.PID
	return true, nil
}
