package sandbox

import (
	"context"
	"errors"
	"io/fs"
	"os"

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

// own has a pod's namespaces belong to its own user namespace, where it has one.
// A PID namespace that is shared must too, or nobody in it could mount its
// /proc: then the pause, which it needs anyway, is the first in all of them.
func (b *build) own(ctx context.Context, spec *namespace.Spec) (owned bool, err error) {
	maps := b.spec.Namespaces.User
	if maps == nil {
		return false, nil
	}
	spec.Owner = &namespace.Owner{Maps: *maps, Holder: userns.Holder{
		Path: b.m.cfg.PausePath, Args: []string{"pause", "namespaces of " + b.rec.ID},
	}, QueueLabel: b.rec.MountLabel}
	if !b.spec.Namespaces.SharedPID {
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
