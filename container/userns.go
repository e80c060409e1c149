package container

import (
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// userMaps are the id maps of a pod's own user namespace; empty ones stand for
// the host's. The pod was checked when it was made.
func userMaps(p *cri.PodSandboxConfig) userns.Maps {
	return mapsOf(p.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions())
}

func mapsOf(u *cri.UserNamespace) userns.Maps {
	if u == nil || u.GetMode() != cri.NamespaceMode_POD {
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

// owner is a user and group of the host.
type owner struct{ uid, gid uint32 }

// rootOf is who the root of a pod's containers is on the host.
func rootOf(p *cri.PodSandboxConfig) owner {
	uid, gid, err := userMaps(p).Root()
	if err != nil {
		return owner{}
	}
	return owner{uid, gid}
}

// checkUserNamespace: a container lives in its pod's user namespace, so the
// request may name that or none. In it nothing of the host's may be joined.
func checkUserNamespace(c *cri.ContainerConfig, p Pod) error {
	const field = "config.linux.security_context.namespace_options."
	o := c.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if u := o.GetUsernsOptions(); u != nil {
		switch u.GetMode() {
		case cri.NamespaceMode_POD:
		case cri.NamespaceMode_NODE:
			if len(u.GetUids())+len(u.GetGids()) > 0 {
				return invalid(field + "userns_options.mode is NODE, with which uids and gids must be empty")
			}
		default:
			return invalid(field+"userns_options.mode is %s; it can be POD or NODE", u.GetMode())
		}
		if (u.GetMode() == cri.NamespaceMode_POD) != (p.UserNS != "") || !mapsOf(u).Equal(userMaps(p.Config)) {
			return invalid(field + "userns_options must be the same as the pod sandbox's")
		}
	}
	if p.UserNS != "" && o.GetPid() == cri.NamespaceMode_NODE {
		return invalid(field + "pid must not be NODE in a pod that has a user namespace of its own")
	}
	return nil
}

// checkMapped: a process can only be who its user namespace knows.
func checkMapped(id identity, p Pod) error {
	if p.UserNS == "" {
		return nil
	}
	maps := userMaps(p.Config)
	if _, ok := userns.Host(maps.UIDs, id.uid); !ok {
		return invalid("config.linux.security_context.run_as_user or the image's USER: uid %d is not mapped in the pod's user namespace", id.uid)
	}
	for _, g := range append([]uint32{id.gid}, id.groups...) {
		if _, ok := userns.Host(maps.GIDs, g); !ok {
			return invalid("config.linux.security_context.run_as_group, supplemental_groups or the image's: gid %d is not mapped in the pod's user namespace", g)
		}
	}
	return nil
}

// checkMappings holds the mappings of a mount to the kernel's rules.
func checkMappings(m *cri.Mount) error {
	if (len(m.GetUidMappings()) == 0) != (len(m.GetGidMappings()) == 0) {
		return invalid("uidMappings and gidMappings need each other")
	}
	if err := userns.Check(mappings(m.GetUidMappings())); err != nil {
		return invalid("uidMappings: %v", err)
	}
	if err := userns.Check(mappings(m.GetGidMappings())); err != nil {
		return invalid("gidMappings: %v", err)
	}
	return nil
}

// mapMounts maps the mounts that the request has, in its order. What an image is
// mounted from is mapped in its layers already, as no overlay can be.
func (m *Manager) mapMounts(mounts []oci.Mount, c *cri.ContainerConfig, p Pod) error {
	for i, asked := range c.GetMounts() {
		if asked.GetImage() != nil {
			if len(asked.GetUidMappings()) > 0 && !mapsOfMount(asked).Equal(userMaps(p.Config)) {
				return invalid("config.mounts[%d].uidMappings and gidMappings of an image must be the pod sandbox's", i)
			}
			continue
		}
		if err := m.mapMount(&mounts[i], asked, p); err != nil {
			return fmt.Errorf("config.mounts[%d].%w", i, err)
		}
	}
	return nil
}

// mapMount has the runtime map the ids of a mount as asked. Where the kernel
// cannot, the runtime could only say so in its own words, so it is tried first.
func (m *Manager) mapMount(to *oci.Mount, asked *cri.Mount, p Pod) error {
	if len(asked.GetUidMappings()) == 0 {
		return nil
	}
	if m.cfg.UserNamespaces != nil {
		if err := m.cfg.UserNamespaces(p.RuntimeHandler); err != nil {
			return fmt.Errorf("uidMappings: runtime handler %q cannot map the ids of mounts here: %w: %w", p.RuntimeHandler, err, errdefs.ErrFailedPrecondition)
		}
	}
	maps := mapsOfMount(asked)
	to.UIDMappings, to.GIDMappings = specMappings(maps.UIDs), specMappings(maps.GIDs)
	if p.UserNS == "" || !maps.Equal(userMaps(p.Config)) {
		return nil // without a user namespace of these maps it cannot be tried
	}
	submounts, err := oci.CheckIDMap(to.Source, p.UserNS)
	if err != nil {
		return fmt.Errorf("uidMappings: host_path: %w", err)
	}
	if submounts && m.cfg.MapsSubmounts != nil && !m.cfg.MapsSubmounts(p.RuntimeHandler) {
		return fmt.Errorf("uidMappings: there are mounts below %s, whose ids runtime handler %q cannot map: %w", to.Source, p.RuntimeHandler, errdefs.ErrFailedPrecondition)
	}
	to.MapSubmounts = submounts
	return nil
}

func mapsOfMount(m *cri.Mount) userns.Maps {
	return userns.Maps{UIDs: mappings(m.GetUidMappings()), GIDs: mappings(m.GetGidMappings())}
}

func specMappings(list []userns.Mapping) []specs.LinuxIDMapping {
	out := make([]specs.LinuxIDMapping, len(list))
	for i, m := range list {
		out[i] = specs.LinuxIDMapping{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size}
	}
	return out
}

// makeDirFor makes a container's directory. Of others, only the root of the
// pod's user namespace may pass, to its root file system: the files of images
// can be setuid, and are no business of the host's users.
func makeDirFor(dir string, root owner) error {
	if err := os.Mkdir(dir, 0o700); err != nil || root == (owner{}) {
		return err
	}
	if err := os.Chown(dir, 0, int(root.gid)); err != nil {
		return err
	}
	return os.Chmod(dir, 0o710)
}

// execInput is an exec in a container, of which the full id is given.
func (m *Manager) execInput(id string, p *specs.Process, timeout time.Duration) oci.ExecInput {
	in := oci.ExecInput{ID: id, Process: p, Timeout: timeout, Dir: m.dir(id)}
	if c, err := m.find(id); err == nil {
		root := rootOf(c.podConfig)
		in.StdioUID, in.StdioGID = root.uid, root.gid
		in.OOMScoreAdj = m.execOOMScoreAdj(c)
	}
	return in
}
