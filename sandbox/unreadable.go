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

// recoverUnreadable returns an entry for a pod whose record cannot be read. The pod is shown as not ready, and keeps
// running until a client stops it. The entry consists of the readable parts of the record, of the cache of the CNI
// library and of facts from the kernel. Parts that are missing get the values that most pods have.
func (m *Manager) recoverUnreadable(ctx context.Context, id string, cause error) *entry {
	log := logrus.WithContext(ctx).WithField("pod", id)
	log.WithError(cause).Error("cannot read the record of the pod sandbox; the pod sandbox is not ready, and can be stopped and removed")
	rec, spec := m.salvage(id)
	rec.LostReason = "its record cannot be read: " + cause.Error()
	if rec.Pause == nil || !rec.Pause.Alive() {
		rec.Pause = nil
		if ref, ok := namespace.FindPause(id); ok {
			rec.Pause = &ref
		}
	}
	if rec.Plan == nil {
		attached, err := m.net.CachedAttachments(id)
		if err != nil {
			log.WithError(err).Warn("cannot find the networks of the pod sandbox")
		}
		for _, i := range attached {
			if i.Name == network.IfName {
				rec.Plan, rec.CNIResult = i.Plan, i.Result
			} else {
				rec.Interfaces = append(rec.Interfaces, i)
			}
		}
	}
	e := newEntry(rec, spec)
	e.unreadable = true
	e.pod = m.snapshot(e)
	return e
}

// salvage returns the readable parts of a record, and the spec of the request in the record.
func (m *Manager) salvage(id string) (*record, *podspec.Spec) {
	rec, config := &record{}, &cri.PodSandboxConfig{}
	info, err := os.Lstat(m.dirs.file(id))
	if err == nil && info.Mode().IsRegular() && info.Size() <= maxRecord {
		if b, err := os.ReadFile(m.dirs.file(id)); err == nil {
			_ = json.Unmarshal(b, rec) // sets the fields before the error
		}
	}
	if rec.ID != id {
		*rec = record{ID: id}
	}
	if len(rec.Config) == 0 || proto.Unmarshal(rec.Config, config) != nil || config.Metadata == nil {
		// No other pod has this name.
		config = &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: id, Uid: id}}
		rec.Config, _ = proto.Marshal(config)
	}
	spec, _ := podspec.ParseStored(config, rec.Handler) // the pod is not ready, so errors in the request do not matter
	rec.Version, rec.BootID = recordVersion, m.boot
	if rec.CreatedAt.IsZero() {
		rec.CreatedAt = time.Now()
		if err == nil {
			rec.CreatedAt = info.ModTime()
		}
	}
	if rec.ReadyAt.IsZero() {
		rec.ReadyAt = rec.CreatedAt // otherwise the next daemon would treat the pod as the leftovers of a failed creation
	}
	// A stop must release everything again, because the result of an earlier stop is unknown.
	rec.StoppedAt, rec.DetachedAt, rec.ReleasedAt = time.Time{}, time.Time{}, time.Time{}
	if rec.NetNSName == "" && !spec.Namespaces.HostNetwork {
		rec.NetNSName = m.newName(id)
	}
	if rec.CgroupParent == "" {
		rec.CgroupParent = m.cfg.cgroupParent(id, spec.CgroupParent)
	}
	return rec, spec
}
