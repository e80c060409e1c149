package bundle

import (
	"context"
	"fmt"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/selinux"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labeler assigns SELinux labels to containers. *selinux.Labels implements Labeler.
type Labeler interface {
	Container(r selinux.Request) (process, mount string, err error)
	// Relabel sets the label of a volume and of all files in it.
	Relabel(path, label string) error
}

// AppArmor loads the profiles of containers. *apparmor.Profiles implements AppArmor.
type AppArmor interface {
	// Ensure returns nil when the profile is loaded.
	Ensure(ctx context.Context, profile string) error
}

// Host has the parts of the host that a container uses.
type Host struct {
	// Labeler and AppArmor are nil if the host has no SELinux or no AppArmor.
	Labeler  Labeler
	AppArmor AppArmor
	// HasBlockIOWeight reports whether a cgroup can have weights of block I/O.
	HasBlockIOWeight func(cgroup string) bool
}

// Labels are the SELinux labels of one container, or "".
type Labels struct {
	Process, Mount string
	confined       bool // the process label confines the container
}

// LabelsFor derives the labels of a container from the labels of its pod. A container
// that shares the PID or IPC namespace of the host is unconfined, unless it has SELinux
// options: a confined process could use neither.
func (h Host) LabelsFor(s *containerspec.Spec, p Pod) (l Labels, err error) {
	options := s.Security.SELinux
	if h.Labeler == nil {
		if selinux.HasOptions(options) {
			logrus.WithFields(logrus.Fields{"pod": p.ID, "name": s.Name}).
				Debug("SELinux is not enabled: ignore the selinux_options of the container")
		}
		return Labels{}, nil
	}
	sharesHost := p.IPCNS == "" || s.PID.Mode == cri.NamespaceMode_NODE
	unconfined := s.Security.Privileged || sharesHost && !selinux.HasOptions(options)
	l.Process, l.Mount, err = h.Labeler.Container(selinux.Request{
		PodProcess: p.ProcessLabel, PodMount: p.MountLabel, Options: options, Unconfined: unconfined,
	})
	if err != nil {
		return Labels{}, fmt.Errorf("config.linux.security_context.%w", err)
	}
	l.confined = l.Process != "" && !unconfined
	return l, nil
}

// relabel sets the label of the container's files on the volumes that have
// selinux_relabel. This may take minutes, so it is a separate stage, and only this
// container waits for it. An unconfined container can access volumes without it.
func (r *Request) relabel(mounts []oci.Mount) error {
	if r.Host.Labeler == nil || !r.Labels.confined {
		return nil
	}
	for i, m := range r.Spec.Mounts {
		if !m.Relabel {
			continue
		}
		r.Enter("relabel " + mounts[i].Source)
		if err := r.Host.Labeler.Relabel(mounts[i].Source, r.Labels.Mount); err != nil {
			return fmt.Errorf("config.mounts[%d].selinux_relabel: %w", i, err)
		}
	}
	r.Enter("write bundle")
	return nil
}

// ensureAppArmor returns an error that names the profile if the profile is not loaded.
// The message of the runtime would say less.
func (h Host) ensureAppArmor(ctx context.Context, profile string) error {
	if profile == "" || h.AppArmor == nil {
		return nil
	}
	if err := h.AppArmor.Ensure(ctx, profile); err != nil {
		return fmt.Errorf("config.linux.security_context.apparmor: %w", err)
	}
	return nil
}
