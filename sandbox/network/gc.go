package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/sirupsen/logrus"
)

const (
	// gcTimeout bounds one run of GC. No pod is attached during a run, so the timeout is shorter than the time that a
	// pod has for its network.
	gcTimeout = time.Minute
	// gcInterval is the minimum time between two runs.
	gcInterval = time.Minute
	// gcRetryInterval is the time until the next attempt if pods were being attached.
	gcRetryInterval = time.Second
	// maxGCAttempts bounds the attempts of a run that fails.
	maxGCAttempts = 3
)

// RequestGC makes Run execute GC soon, because a failed attachment may have left something behind.
func (n *Network) RequestGC() {
	select {
	case n.gcRequests <- struct{}{}:
	default:
	}
}

// gc makes the plugins of all networks remove objects that belong to no pod: the leases, rules and
// attachments of removed pods, for example after a reboot. Plugins support GC with cniVersion
// 1.1.0. gc respects disableGC in the configuration. It returns errAttaching while pods are being
// attached.
func (n *Network) gc(ctx context.Context) error {
	valid, end, err := n.attachments.beginGC()
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithTimeout(ctx, gcTimeout)
	defer cancel()
	var errs []error
	for _, l := range n.loaded.Load().all() {
		if err := n.cni().GCNetworkList(ctx, n.executable(l), &libcni.GCArgs{ValidAttachments: valid}); err != nil {
			errs = append(errs, fmt.Errorf("run GC of network %q: %w", l.conf.Name, err))
		}
	}
	if err := n.removeUnusedBridge(ctx); err != nil {
		errs = append(errs, fmt.Errorf("delete the unused default bridge: %w", err))
	}
	return errors.Join(errs...)
}

// gcSchedule says when the next GC is due. One goroutine uses it.
type gcSchedule struct {
	requested bool
	last      time.Time // the end of the last attempt
	failures  int       // since the last success
}

func (s *gcSchedule) request() { s.requested, s.failures = true, 0 }

// runIfDue runs GC if it is due. It returns the time at which GC is due next, or the zero value if GC is not requested.
func (s *gcSchedule) runIfDue(ctx context.Context, gc func(context.Context) error) time.Time {
	if !s.requested {
		return time.Time{}
	}
	if due := s.last.Add(gcInterval); !s.last.IsZero() && due.After(time.Now()) {
		return due
	}
	err := gc(ctx)
	if errors.Is(err, errAttaching) {
		return time.Now().Add(gcRetryInterval)
	}
	s.last = time.Now()
	if err == nil {
		s.requested, s.failures = false, 0
		return time.Time{}
	}
	s.failures++
	if ctx.Err() == nil {
		logrus.WithContext(ctx).WithError(err).Warn("CNI GC failed")
	}
	s.requested = s.failures < maxGCAttempts
	return s.last.Add(gcInterval)
}
