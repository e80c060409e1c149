package sandbox

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podspec"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// unread makes the entry of a pod whose record cannot be read. The pod is shown as
// not ready, and nothing of it ends before it is stopped. What is known of it comes
// from the parts of the record that can be read, the cache of the CNI library and
// the kernel; what is missing is taken for what a pod has most often.
func (m *Manager) unread(ctx context.Context, id string, cause error) *entry {
	log := logrus.WithContext(ctx).WithField("pod", id)
	log.WithError(cause).Error("the record of the pod sandbox cannot be read: it is shown as not ready, and can be stopped and removed")
	rec, config := m.salvage(id)
	rec.Lost = "its record cannot be read: " + cause.Error()
	if rec.Pause == nil || !rec.Pause.Alive() {
		rec.Pause = nil
		if ref, ok := namespace.FindPause(id); ok {
			rec.Pause = &ref
		}
	}
	if rec.Plan == nil {
		attached, err := m.net.Cached(id)
		if err != nil {
			log.WithError(err).Warn("networks of the pod could not be looked for")
		}
		for _, i := range attached {
			if i.Name == network.IfName {
				rec.Plan, rec.CNIResult = i.Plan, i.Result
			} else {
				rec.Interfaces = append(rec.Interfaces, i)
			}
		}
	}
	spec, _ := podspec.ParseStored(config, rec.Handler)
	e := newEntry(rec, spec)
	e.unread = true
	e.pod = m.snapshot(e)
	return e
}

// salvage returns what can be read of a record, and of the request in it.
func (m *Manager) salvage(id string) (*record, *cri.PodSandboxConfig) {
	rec, config := &record{}, &cri.PodSandboxConfig{}
	info, err := os.Lstat(m.dirs.file(id))
	if err == nil && info.Mode().IsRegular() && info.Size() <= maxRecord {
		if b, err := os.ReadFile(m.dirs.file(id)); err == nil {
			_ = json.Unmarshal(b, rec) // fields that can be read are there
		}
	}
	if rec.ID != id {
		*rec = record{ID: id}
	}
	if len(rec.Config) == 0 || proto.Unmarshal(rec.Config, config) != nil || config.Metadata == nil {
		// The name is one that no other pod has.
		config = &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: id, Uid: id}}
		rec.Config, _ = proto.Marshal(config)
	}
	rec.Version, rec.BootID = recordVersion, m.boot
	if rec.CreatedAt.IsZero() {
		rec.CreatedAt = time.Now()
		if err == nil {
			rec.CreatedAt = info.ModTime()
		}
	}
	if rec.ReadyAt.IsZero() {
		rec.ReadyAt = rec.CreatedAt // or the next daemon would take the pod for remains
	}
	rec.StoppedAt, rec.DetachedAt, rec.ReleasedAt = time.Time{}, time.Time{}, time.Time{} // all is looked for again
	if rec.CgroupParent == "" {
		rec.CgroupParent = cgroupParent(m.cfg, id, config)
	}
	return rec, config
}
