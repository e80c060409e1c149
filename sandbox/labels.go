package sandbox

import (
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels gives pods their SELinux labels; *selinux.Labels does.
type Labels interface {
	// Pod returns labels that are this pod's until Release.
	Pod(o *cri.SELinuxOption) (process, mount string, err error)
	// Keep takes over a label that an earlier daemon gave out.
	Keep(process string) error
	Release(process string, o *cri.SELinuxOption)
	// File labels one file.
	File(path, label string) error
}

func selinuxOptions(c *cri.PodSandboxConfig) *cri.SELinuxOption {
	return c.GetLinux().GetSecurityContext().GetSelinuxOptions()
}

// label sets the pod's labels in its record. On a host without SELinux, the options
// of the request are ignored.
func (b *build) label() (err error) {
	if b.m.cfg.Labels == nil {
		if proto.Size(selinuxOptions(b.spec.Config)) > 0 {
			logrus.WithField("pod", b.rec.ID).Debug("SELinux is not enabled: ignore the selinux_options of the pod sandbox")
		}
		return nil
	}
	b.rec.ProcessLabel, b.rec.MountLabel, err = b.m.cfg.Labels.Pod(selinuxOptions(b.spec.Config))
	return err
}

// labelFile lets containers of the pod read and write one of its files.
func (b *build) labelFile(path string) error {
	if b.m.cfg.Labels == nil {
		return nil
	}
	return b.m.cfg.Labels.File(path, b.rec.MountLabel)
}

// unlabel gives a pod's labels to others. Those of an earlier boot may be
// others' already.
func (m *Manager) unlabel(r *record, c *cri.PodSandboxConfig) {
	if m.cfg.Labels != nil && r.BootID == m.boot {
		m.cfg.Labels.Release(r.ProcessLabel, selinuxOptions(c))
	}
}

// keepLabel is for a pod that an earlier daemon made.
func (m *Manager) keepLabel(r *record) {
	if m.cfg.Labels == nil || r.BootID != m.boot {
		return
	}
	if err := m.cfg.Labels.Keep(r.ProcessLabel); err != nil {
		logrus.WithError(err).WithField("pod", r.ID).Warn("another pod may get the same SELinux label")
	}
}
