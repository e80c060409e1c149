package container

import (
	"context"
	"fmt"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/selinux"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels assigns SELinux labels to containers. *selinux.Labels implements Labels.
type Labels interface {
	Container(r selinux.Request) (process, mount string, err error)
	// Relabel sets the label of a volume and of all files in it.
	Relabel(path, label string) error
}

// AppArmor loads the profiles of containers. *apparmor.Profiles implements AppArmor.
type AppArmor interface {
	// Ensure returns nil when the profile is loaded.
	Ensure(ctx context.Context, profile string) error
}

// labels are the SELinux labels of one container, or "".
type labels struct {
	process, mount string
	confined       bool // the process label confines the container
}

// labelsFor derives the labels of a container from the labels of its pod. A container
// that shares the PID or IPC namespace of the host is unconfined, unless it has SELinux
// options: a confined process could use neither.
func (m *Manager) labelsFor(s *containerspec.Spec, p Pod) (l labels, err error) {
	options := s.Security.SELinux
	if m.cfg.Labels == nil {
		if selinux.HasOptions(options) {
			logrus.WithFields(logrus.Fields{"pod": p.ID, "name": s.Name}).
				Debug("SELinux is not enabled: ignore the selinux_options of the container")
		}
		return labels{}, nil
	}
	sharesHost := p.IPCNS == "" || s.PID.Mode == cri.NamespaceMode_NODE
	unconfined := s.Security.Privileged || sharesHost && !selinux.HasOptions(options)
	l.process, l.mount, err = m.cfg.Labels.Container(selinux.Request{
		PodProcess: p.ProcessLabel, PodMount: p.MountLabel, Options: options, Unconfined: unconfined,
	})
	if err != nil {
		return labels{}, fmt.Errorf("config.linux.security_context.%w", err)
	}
	l.confined = l.process != "" && !unconfined
	return l, nil
}

// relabel sets the label of the container's files on the volumes that have
// selinux_relabel. This may take minutes, so it is a separate stage, and only this
// container waits for it. An unconfined container can access volumes without it.
func (m *Manager) relabel(c *container, p *plan, mounts []oci.Mount) error {
	if m.cfg.Labels == nil || !p.labels.confined {
		return nil
	}
	for i, r := range p.spec.Mounts {
		if !r.Relabel {
			continue
		}
		c.enter("relabel " + mounts[i].Source)
		if err := m.cfg.Labels.Relabel(mounts[i].Source, p.labels.mount); err != nil {
			return fmt.Errorf("config.mounts[%d].selinux_relabel: %w", i, err)
		}
	}
	c.enter("write bundle")
	return nil
}

// ensureAppArmor returns an error that names the profile if the profile is not loaded.
// The message of the runtime would say less.
func (m *Manager) ensureAppArmor(ctx context.Context, profile string) error {
	if profile == "" || m.cfg.AppArmor == nil {
		return nil
	}
	if err := m.cfg.AppArmor.Ensure(ctx, profile); err != nil {
		return fmt.Errorf("config.linux.security_context.apparmor: %w", err)
	}
	return nil
}
