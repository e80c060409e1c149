package container

import (
	"context"
	"fmt"

	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/selinux"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels gives containers their SELinux labels; *selinux.Labels does.
type Labels interface {
	Container(r selinux.Request) (process, mount string, err error)
	// Relabel labels a volume with all that is in it.
	Relabel(path, label string) error
}

// labels are the SELinux labels of one container, "" for none.
type labels struct {
	process, mount string
	confined       bool // by process
}

// labelsFor derives the labels of a container from the labels of its pod. A container
// that shares the PID or IPC namespace of the host is unconfined, unless it has SELinux
// options: a confined process could use neither.
func (m *Manager) labelsFor(c *cri.ContainerConfig, p Pod) (l labels, err error) {
	sc := c.GetLinux().GetSecurityContext()
	if m.cfg.Labels == nil {
		if selinux.Asked(sc.GetSelinuxOptions()) {
			logrus.WithFields(logrus.Fields{"pod": p.ID, "name": c.GetMetadata().GetName()}).
				Debug("SELinux is not enabled: ignore the selinux_options of the container")
		}
		return labels{}, nil
	}
	seesHost := p.IPCNS == "" || sc.GetNamespaceOptions().GetPid() == cri.NamespaceMode_NODE
	unconfined := sc.GetPrivileged() || seesHost && !selinux.Asked(sc.GetSelinuxOptions())
	l.process, l.mount, err = m.cfg.Labels.Container(selinux.Request{
		PodProcess: p.ProcessLabel, PodMount: p.MountLabel, Options: sc.GetSelinuxOptions(), Unconfined: unconfined,
	})
	if err != nil {
		return labels{}, fmt.Errorf("config.linux.security_context.%w", err)
	}
	l.confined = l.process != "" && !unconfined
	return l, nil
}

// relabel sets the label of the container's files on the volumes that have
// selinux_relabel. This may take minutes, so it is a stage of its own, and only this
// container waits for it. An unconfined container can access volumes without it.
func (m *Manager) relabel(c *container, l labels, mounts []oci.Mount) error {
	if m.cfg.Labels == nil || !l.confined {
		return nil
	}
	for i, r := range c.config.GetMounts() {
		if !r.GetSelinuxRelabel() || r.GetImage() != nil {
			continue
		}
		c.enter("relabel " + mounts[i].Source)
		if err := m.cfg.Labels.Relabel(mounts[i].Source, l.mount); err != nil {
			return fmt.Errorf("config.mounts[%d].selinux_relabel: %w", i, err)
		}
	}
	c.enter("write bundle")
	return nil
}

func (m *Manager) mountRootFS(ctx context.Context, c *container, p *plan) error {
	return m.cfg.Images.Mount(ctx, RootFS{
		ImageID: p.image.ID, ContainerID: c.id, Target: c.rootfs(), UserNS: p.pod.UserNS, Label: p.labels.mount,
	})
}
