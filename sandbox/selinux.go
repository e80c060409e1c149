package sandbox

import (
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels allocates the SELinux labels of pods. *selinux.Labels implements Labels.
type Labels interface {
	// Pod returns labels that no other pod gets until Release.
	Pod(o *cri.SELinuxOption) (process, mount string, err error)
	// Keep reserves a label that an earlier daemon allocated.
	Keep(process string) error
	// Release ends the reservation of a label.
	Release(process string, o *cri.SELinuxOption)
	// File labels one file.
	File(path, label string) error
}

// label allocates the SELinux labels of the pod and sets them in its record. On a host without SELinux, the options of
// the request are ignored.
func (b *build) label() (err error) {
	if b.m.cfg.Labels == nil {
		if proto.Size(b.spec.SELinux) > 0 {
			logrus.WithField("pod", b.rec.ID).Debug("SELinux is not enabled: ignore the selinux_options of the pod sandbox")
		}
		return nil
	}
	b.rec.ProcessLabel, b.rec.MountLabel, err = b.m.cfg.Labels.Pod(b.spec.SELinux)
	return err
}

// releaseLabels releases the labels of a pod. It does not release the labels of a pod of an earlier boot, because
// another pod may have them since.
func (m *Manager) releaseLabels(e *entry) {
	if m.cfg.Labels != nil && e.rec.BootID == m.boot {
		m.cfg.Labels.Release(e.rec.ProcessLabel, e.spec.SELinux)
	}
}

// keepLabels reserves the labels of a pod that an earlier daemon created.
func (m *Manager) keepLabels(r *record) {
	if m.cfg.Labels == nil || r.BootID != m.boot {
		return
	}
	if err := m.cfg.Labels.Keep(r.ProcessLabel); err != nil {
		logrus.WithError(err).WithField("pod", r.ID).Warn("cannot reserve the SELinux label of the pod sandbox; another pod sandbox may get the same label")
	}
}
