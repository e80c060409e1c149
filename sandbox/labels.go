package sandbox

import (
	"errors"
	"path/filepath"

	"github.com/sirupsen/logrus"
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

// label gives the pod its labels, which go with its record.
func (b *build) label() (err error) {
	if b.m.cfg.Labels == nil {
		return nil
	}
	b.rec.ProcessLabel, b.rec.MountLabel, err = b.m.cfg.Labels.Pod(selinuxOptions(b.config))
	return err
}

// labelFiles lets containers of the pod read and write its files.
func (b *build) labelFiles(names ...string) error {
	if b.m.cfg.Labels == nil {
		return nil
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, b.m.cfg.Labels.File(filepath.Join(b.m.dirs.pod(b.rec.ID), name), b.rec.MountLabel))
	}
	return errors.Join(errs...)
}

// unlabel gives a pod's labels to others.
func (m *Manager) unlabel(r *record, c *cri.PodSandboxConfig) {
	if m.cfg.Labels != nil {
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
