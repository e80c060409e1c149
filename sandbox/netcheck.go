package sandbox

import (
	"context"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

const (
	checkTimeout = time.Minute // for all interfaces of a pod
	checkWidth   = 2           // pods side by side
)

// checkNetworks asks the plugins once, after a start, whether the pods that were
// there before are still attached. What they deny is logged and shown with the
// pod, which stays ready: to call it lost would have all pods of a node made
// anew for a plugin's bad moment, when its own agent is started again as well.
func (m *Manager) checkNetworks(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(checkWidth)
	for id, e := range m.view.Load().entries {
		if e.hidden || !e.rec.ready() || e.rec.Plan == nil {
			continue
		}
		g.Go(func() error { m.checkNetwork(ctx, id, e); return nil })
	}
	_ = g.Wait() // nothing in it fails
}

func (m *Manager) checkNetwork(ctx context.Context, id string, e *entry) {
	bounded, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	pod := networkPod(e.rec, filepath.Join(m.dirs.pin(id), namespace.Net), e.spec)
	err := m.checkInterfaces(bounded, pod, e.rec.attachments())
	if err == nil || ctx.Err() != nil {
		return
	}
	if bounded.Err() != nil {
		// A late answer says nothing about the pod.
		logrus.WithContext(ctx).WithError(err).WithField("pod", id).Warn("the plugins did not end the check of the pod sandbox's network in time")
		return
	}
	unlock, lockErr := m.ops.Lock(ctx, id)
	if lockErr != nil {
		return // the daemon ends
	}
	defer unlock()
	// A pod that was being stopped meanwhile had reason not to be attached.
	now := m.view.Load().entries[id]
	if now == nil || !now.rec.ready() {
		return
	}
	logrus.WithContext(ctx).WithError(err).WithField("pod", id).Warn("network of the pod sandbox is not as it was left")
	next := now.copy()
	next.networkFault = err.Error()
	m.publish(next)
}

func (m *Manager) checkInterfaces(ctx context.Context, pod network.Pod, all []network.Interface) error {
	for _, i := range all {
		if err := m.net.Check(ctx, pod, i); err != nil {
			return err
		}
	}
	return nil
}
